"""The whole detector: what it gives, that it trains on every kind of crop, and that it learns."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from deepem.models import mask_rcnn as plug_in
from deepem.models.detection import roi_heads
from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.boxes import box_iou
from deepem.models.detection.mask_rcnn import LOSSES, FasterRCNN, MaskRCNN
from deepem.models.detection.roi_align import MultiScaleRoIAlign
from deepem.models.detection.targets import from_labels, masks_of
from deepem.utils.errors import InputError

SIZE = (16, 24, 32)


def balls(count, size=SIZE, seed=0, radius=3):
    """Labels of balls at random, some cut by the faces of the volume, some by each other."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    labels = torch.zeros(size, dtype=torch.int32)
    for label in range(1, count + 1):
        centre = torch.rand(3, generator=generator) * torch.tensor(size)
        labels[sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius**2] = label
    return labels[None, None]


def image_of(labels):
    return (labels > 0).any(1, keepdim=True).float() + 0.1 * torch.randn(len(labels), 1, *labels.shape[2:])


def batch_of(labels, **more):
    torch.manual_seed(0)
    return {"input": image_of(labels), "instance": labels, **more}


@pytest.fixture
def make(pyramid, small):
    """make(classes, **settings): a quick detector, the same each time."""

    def detector(classes=1, backbone=None, **settings):
        torch.manual_seed(0)
        return MaskRCNN(backbone or pyramid(), classes + 1, **{**small, **settings})

    return detector


def trained(model, batch):
    """The losses of a batch and the gradients of their sum, every parameter having one."""
    model.train()
    losses, dense = model.losses(batch)
    sum(loss for loss, _ in losses.values()).backward()
    for name, (loss, count) in losses.items():
        assert loss.isfinite(), name
        assert torch.as_tensor(count) >= 0
    for name, parameter in model.roi_heads.named_parameters():
        assert parameter.grad is not None, name
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name
    return {name: float(loss.detach()) for name, (loss, _) in losses.items()}, dense


def test_it_gives_objects_with_boxes_classes_scores_and_masks(make):
    model = make(2, box_score_thresh=0.0).eval()
    with torch.no_grad():
        found = model(torch.rand(2, 1, *SIZE))
    assert list(found) == ["instance"]
    assert len(found["instance"]) == 2
    for one in found["instance"]:
        n = len(one["boxes"])
        assert 0 < n <= 10
        assert one["boxes"].shape == (n, 6)
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor(SIZE * 2)).all()
        assert set(one["labels"].tolist()) <= {1, 2}
        assert one["scores"].tolist() == sorted(one["scores"].tolist(), reverse=True)
        assert one["masks"].shape == (n, *SIZE)
        assert one["masks"].dtype == torch.bool
        assert one["mask_probs"].shape == (n, 28, 28, 28)


def test_without_masks_it_gives_boxes_alone(pyramid, small):
    del small["mask_layers"]
    model = FasterRCNN(pyramid(), 2, **small)
    losses, _ = model.losses(batch_of(balls(3)))
    assert list(losses) == [name for name in LOSSES if name != "mask"]
    assert set(model.eval()(torch.rand(1, 1, *SIZE))["instance"][0]) == {"boxes", "labels", "scores"}


CROPS = {
    "objects": balls(4),
    "nothing": balls(0),
    "one sample of nothing": torch.cat([balls(4), balls(0)]),
    "300 objects": balls(300, radius=2),
    "one voxel": torch.zeros(1, 1, *SIZE, dtype=torch.int32).index_fill_(4, torch.tensor([31]), 0),
    "all of one object": torch.ones(1, 1, *SIZE, dtype=torch.int32),
    "cut by every face": torch.nn.functional.pad(
        torch.zeros(1, 1, 14, 22, 30, dtype=torch.int32), (1, 1, 1, 1, 1, 1), value=3
    ),
}
CROPS["one voxel"][0, 0, 15, 23, 31] = 7


@pytest.mark.parametrize("name", CROPS)
def test_it_trains_on_every_crop(make, name):
    labels = CROPS[name]
    losses, dense = trained(make(), batch_of(labels))
    assert set(losses) == set(LOSSES)
    assert dense == {}
    if name == "nothing":
        assert losses["rpn_box"] == losses["box"] == losses["mask"] == 0
        assert losses["objectness"] > 0
        assert losses["classifier"] > 0
    elif "cut" not in name:
        assert losses["mask"] > 0


def test_300_objects_are_all_there():
    target = from_labels(CROPS["300 objects"][0])
    assert len(target["boxes"]) > 200  # some balls lie below others
    assert (target["boxes"][:, 3:] == torch.tensor(SIZE)).any(0).all()  # and some are cut by the faces


def test_a_class_can_be_missing_and_objects_of_several_have_theirs(make):
    labels = torch.cat([balls(3), torch.zeros_like(balls(3)), balls(2, seed=5)], 1)
    model = make(3)
    [target] = model.targets(batch_of(labels))
    assert sorted(set(target["labels"].tolist())) == [1, 3]
    trained(model, batch_of(labels))
    rows = torch.tensor([[[1, 3], [2, 1], [0, 0]]])
    [target] = model.targets(batch_of(balls(3), instance_classes=rows))
    assert target["labels"].tolist() == [3, 1]
    trained(model, batch_of(balls(3), instance_classes=rows))


def test_boxes_without_volume_are_left_out(make):
    whole = from_labels(balls(3)[0])
    boxes = torch.cat([whole["boxes"], torch.tensor([[2.0, 2, 2, 2, 5, 5], [1, 1, 1, 1, 1, 1]])])
    masks = torch.cat([masks_of(whole), torch.zeros(2, *SIZE, dtype=torch.bool)])
    labels = torch.ones(len(boxes), dtype=torch.long)
    batch = {"input": image_of(balls(3)), "targets": [{"boxes": boxes, "labels": labels, "masks": masks}]}
    trained(make(), batch)
    none = {"boxes": torch.zeros(0, 6), "labels": labels[:0], "masks": masks[:0]}
    flat = {"boxes": boxes[3:], "labels": labels[3:], "masks": masks[3:]}
    for target in (none, flat):
        losses, _ = trained(make(), {**batch, "targets": [target]})
        assert losses["box"] == 0


def test_masks_or_labels_are_the_same_target(make):
    labels = balls(4)
    batch = batch_of(labels)
    target = from_labels(labels[0])
    as_masks = {"boxes": target["boxes"], "labels": target["labels"], "masks": masks_of(target)}
    torch.manual_seed(1)
    first, _ = trained(make(), batch)
    second, _ = trained(make(), {"input": batch["input"], "targets": [as_masks]})
    assert first == pytest.approx(second, rel=1e-5)


def test_losses_of_a_batch_are_the_sum_over_its_samples(make):
    labels = torch.cat([balls(4), balls(2, seed=3)])
    batch = batch_of(labels)
    everything = {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6, "box_positive_fraction": 1.0}
    model = make(**everything)
    with torch.no_grad():
        whole, _ = model.losses(batch)
        halves = [model.losses({key: value[i : i + 1] for key, value in batch.items()})[0] for i in range(2)]
    for name, (loss, count) in whole.items():
        torch.testing.assert_close(loss, halves[0][name][0] + halves[1][name][0], rtol=1e-4, atol=1e-6)
        assert count == halves[0][name][1] + halves[1][name][1]


def test_each_loss_has_its_weight(make):
    batch = batch_of(balls(4))
    plain, _ = trained(make(), batch)
    weights = {name: float(i) for i, name in enumerate(LOSSES)}
    weighted, _ = trained(make(loss_weights=weights), batch)
    assert weighted == pytest.approx({name: plain[name] * weights[name] for name in LOSSES})
    with pytest.raises(InputError, match="loss_weights: got boxes"):
        make(loss_weights={"boxes": 1.0})


def test_what_is_not_known_is_not_trained(make):
    labels = balls(0)
    mask = torch.zeros(1, 1, *SIZE)
    losses, _ = trained(make(), batch_of(labels, instance_mask=mask))
    assert set(losses.values()) == {0}
    mask[..., :4] = 1
    losses, _ = trained(make(), batch_of(labels, instance_mask=mask))
    assert losses["objectness"] > 0


def test_labels_may_cover_only_the_centre(make):
    model = make()
    centre = balls(2, size=(8, 16, 20))
    batch = {"input": torch.randn(1, 1, *SIZE), "instance": centre}
    [target] = model.targets(batch)
    [inner] = model.targets({"input": torch.randn(1, 1, 8, 16, 20), "instance": centre})
    assert torch.equal(target["boxes"], inner["boxes"] + torch.tensor([4.0, 4, 6] * 2))
    trained(model, batch)


def test_dense_heads_share_its_backbone_and_its_pass(make):
    spec = {"affinity": (3, *SIZE), "mitochondria": (1, 8, 12, 16)}
    model = make(dense_spec=spec)
    batch = batch_of(balls(3))
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    losses, dense = model.losses(batch)
    assert calls == [1]
    assert set(losses) == set(LOSSES)
    assert {name: tuple(logits.shape) for name, logits in dense.items()} == {k: (1, *v) for k, v in spec.items()}
    found = model.eval()(batch["input"])
    assert list(found) == ["affinity", "mitochondria", "instance"]
    torch.testing.assert_close(found["affinity"], dense["affinity"])
    dense["affinity"].sum().backward()
    assert model.backbone.stem[0].weight.grad.abs().sum() > 0
    resized = make(dense_spec=spec, min_size=8).eval()(batch["input"])
    assert resized["affinity"].shape == (1, 3, *SIZE)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_it_trains_under_autocast(make, kind):
    model, batch = make(dense_spec={"boundary": (1, *SIZE)}), batch_of(balls(5))
    exact, _ = trained(copy.deepcopy(model), batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", kind):
        losses, _ = trained(model, batch)
        found = model.eval()(batch["input"])["instance"][0]
    assert losses == pytest.approx(exact, rel=0.2)
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32


def test_a_volume_that_is_no_multiple_of_the_strides_and_a_single_map_will_do(make, single):
    for backbone, size in ((None, (7, 13, 18)), (single(), (5, 9, 11))):
        model = make(backbone=backbone, box_score_thresh=0.0)
        trained(model, batch_of(balls(2, size=size)))
        [found] = model.eval()(torch.rand(1, 1, *size))["instance"]
        assert found["masks"].shape[1:] == size


def test_batches_are_padded_to_what_the_backbone_wants(make, pyramid):
    backbone = pyramid()
    backbone.strides["pool"] = (8, 8, 8)
    assert make(backbone=backbone).transform.size_divisible == (4, 4, 4)
    backbone.multiple = (2, 12, 6)
    assert make(backbone=backbone).transform.size_divisible == (2, 12, 6)


def test_boxes_come_back_in_the_voxels_of_the_image(make):
    image = torch.rand(1, 1, 16, 16, 16)
    small = make(min_size=8, box_score_thresh=0.0).eval()
    found = small(image)["instance"][0]
    again = make(box_score_thresh=0.0).eval()(torch.nn.functional.interpolate(image, size=(8,) * 3, mode="trilinear"))
    torch.testing.assert_close(found["boxes"], again["instance"][0]["boxes"] * 2)
    assert found["masks"].shape[1:] == (16, 16, 16)


def test_draws_come_from_its_generator(make):
    batch = batch_of(balls(4))

    def once(seed):
        generator = torch.Generator().manual_seed(seed)
        return trained(make(generator=generator, rpn_batch_size_per_image=4), batch)[0]

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_its_losses_fall(make):
    model, batch = make(), batch_of(balls(4))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    totals = []
    for _ in range(15):
        optimizer.zero_grad()
        losses, _ = model.losses(batch)
        total = sum(loss for loss, _ in losses.values())
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])


@pytest.mark.slow
def test_it_learns_to_find_balls(pyramid):
    torch.manual_seed(2)
    anchors = AnchorGenerator([[8.0], [12.0]], [[1.0]] * 2)
    settings = {"representation_size": 64, "mask_layers": (16,), "rpn_anchor_generator": anchors}
    settings |= {"box_batch_size_per_image": 32, "rpn_post_nms_top_n_train": 60, "rpn_post_nms_top_n_test": 60}
    settings |= {"rpn_pre_nms_top_n_train": 200, "mask_roi_pool": MultiScaleRoIAlign(["p1"], 6, 2)}
    settings |= {"box_roi_pool": MultiScaleRoIAlign(["p1"], 4, 2)}
    model = MaskRCNN(pyramid(width=16), 2, **settings)
    labels = balls(4, seed=2, radius=4)
    batch = batch_of(labels)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        losses, _ = model.losses(batch)
        sum(loss for loss, _ in losses.values()).backward()
        optimizer.step()
    [found] = model.eval()(batch["input"])["instance"]
    true = from_labels(labels[0])
    overlap = box_iou(true["boxes"], found["boxes"][found["scores"] > 0.5])
    assert (overlap.amax(1) > 0.6).all()
    assert overlap.shape[1] <= len(true["boxes"]) + 2
    masks, wanted = found["masks"][overlap.argmax(1)], masks_of(true)
    assert ((masks & wanted).sum((1, 2, 3)) / (masks | wanted).sum((1, 2, 3)) > 0.5).all()


def test_a_larger_image_may_have_more_objects(make):
    """So that tiles of any size find as many of them; as in torchvision, the numbers are per image by default."""
    found = {}
    for per, size in ((None, (16, 16, 32)), (16**3, (16, 16, 32)), (16**3, (16, 16, 16))):
        model = make(1, box_score_thresh=0.0, box_nms_thresh=1.0, box_detections_per_img=3, limit_voxels=per,
                     rpn_pre_nms_top_n_test=4, rpn_post_nms_top_n_test=5, rpn_nms_thresh=1.0).eval()  # fmt: skip
        with torch.no_grad():
            images, _ = model.transform(torch.rand(1, 1, *size))
            proposals, _ = model.rpn(images, model.features(images.tensors))
            found[per, size[2]] = len(proposals[0]), len(model(images.tensors)["instance"][0]["boxes"])
    assert found == {(None, 32): (5, 3), (16**3, 32): (10, 6), (16**3, 16): (5, 3)}


def test_objects_do_not_depend_on_how_many_the_heads_see_at_a_time(make, monkeypatch):
    model, images = make(2, box_score_thresh=0.0).eval(), torch.rand(2, 1, *SIZE)
    with torch.no_grad():
        whole = model(images)["instance"]
        monkeypatch.setattr(roi_heads, "BOXES_AT_A_TIME", 7)
        monkeypatch.setattr(roi_heads, "MASKS_AT_A_TIME", 3)
        parts = model(images)["instance"]
    assert sum(len(one["boxes"]) for one in whole) > 6
    for one, other in zip(whole, parts, strict=True):
        assert one.keys() == other.keys()
        for key in ("boxes", "labels", "scores", "mask_probs"):
            assert torch.allclose(one[key].float(), other[key].float(), atol=1e-4), key


def test_the_plug_in_hands_its_flags_on(pyramid):
    made = []

    def create_backbone(*, in_channels):
        made.append(in_channels)
        return pyramid(in_channels)

    specs = {"in_spec": {"input": (2, *SIZE)}, "out_spec": {"affinity": (3, *SIZE), "instance": (2, *SIZE)}}
    flags = {"box_width": 16, "mask_width": [4, 6], "anchor_sizes": [[700.0], [1400.0]], "box_pool": 3, "mask_pool": 4}
    flags |= {"anchor_voxel_size": (100.0, 50.0, 50.0), "inst_mask_weight": 0.0, "rpn_post_nms": [30], "max_size": 99}
    model = plug_in.create_model(**specs, create_backbone=create_backbone, **flags, rpn_conv_depth=2)
    assert made == [2]
    state = model.state_dict()
    assert state["roi_heads.box_predictor.cls_score.weight"].shape == (3, 16)
    assert state["roi_heads.box_head.fc6.weight"].shape == (16, 8 * 27)
    assert state["roi_heads.mask_predictor.conv5_mask.weight"].shape == (6, 6, 2, 2, 2)
    assert "rpn.head.conv.1.0.weight" in state
    assert (model.rpn.anchor_generator.cells[1][1, 3:] * 2).tolist() == [14, 28, 28]
    assert model.rpn.post_nms_top_n == {"training": 30, "testing": 30}
    assert model.loss_weights["mask"] == 0
    assert model.rpn.limit_voxels == model.roi_heads.limit_voxels == 64**3
    assert plug_in.create_model(**specs, create_backbone=pyramid(2), **flags).backbone.out_channels["p1"] == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"out_spec": {"affinity": (3, 8, 8, 8)}, "create_backbone": "tiny"}, "got the outputs affinity"),
        ({"rpn_pre_nms": [1, 2, 3], "create_backbone": "tiny"}, "rpn_pre_nms"),
        ({"anchor_sizes": [[8.0]], "aspect_ratios": [[1.0], [2.0]], "create_backbone": "tiny"}, "anchors: got 1 sizes"),
    ],
)
def test_wrong_flags_are_named(pyramid, flags, message):
    if "create_backbone" in flags:
        flags = {**flags, "create_backbone": pyramid()}
    with pytest.raises(InputError, match=message):
        plug_in.create_model(**{"in_spec": {"input": (1, 8, 8, 8)}, "out_spec": {"instance": (1, 8, 8, 8)}, **flags})


def test_a_backbone_of_several_widths_is_refused(pyramid):
    backbone = pyramid()
    backbone.out_channels = {"p1": 8, "p2": 16}
    with pytest.raises(InputError, match="put an FPN on it"):
        FasterRCNN(backbone, 2)
    with pytest.raises(InputError, match="num_classes"):
        FasterRCNN(pyramid())


def test_a_backbone_that_is_no_pyramid_has_one_put_on_it():
    backbones = pytest.importorskip("deepem.models.backbones")
    specs = {"in_spec": {"input": (1, 32, 32, 32)}, "out_spec": {"instance": (1, 32, 32, 32)}}
    flags = {"fpn_width": 8, "box_width": 16, "mask_width": [8], "box_rois": 8}
    resnet = partial(backbones.resnet18, norm="group")  # batch norm has nothing to average at 1^3
    model = plug_in.create_model(**specs, create_backbone=resnet, **flags)
    assert set(model.backbone.out_channels.values()) == {8}
    assert list(model.backbone.strides) == ["p2", "p3", "p4", "p5", "pool"]
    trained(model, batch_of(balls(3, size=(32, 32, 32))))
    assert "pool" not in plug_in.create_model(**specs, **flags, fpn_pool=False).backbone.strides
