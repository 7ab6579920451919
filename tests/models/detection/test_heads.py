"""The two stages of a detector: their networks, losses against recorded figures, what is drawn and what is kept."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.roi_align import MultiScaleRoIAlign
from deepem.models.detection.roi_heads import (
    FastRCNNPredictor,
    MaskRCNNHeads,
    MaskRCNNPredictor,
    RoIHeads,
    TwoMLPHead,
    fastrcnn_loss,
    maskrcnn_loss,
)
from deepem.models.detection.rpn import RegionProposalNetwork, RPNHead, unless_unknown
from deepem.models.detection.transform import ImageList


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def test_the_heads_have_the_parameters_of_the_published_ones_with_an_axis_more():
    assert shapes(RPNHead(4, 3, conv_depth=2)) == {
        **{f"conv.{i}.0.weight": (4, 4, 3, 3, 3) for i in range(2)},
        **{f"conv.{i}.0.bias": (4,) for i in range(2)},
        **{"cls_logits.weight": (3, 4, 1, 1, 1), "cls_logits.bias": (3,)},
        **{"bbox_pred.weight": (18, 4, 1, 1, 1), "bbox_pred.bias": (18,)},
    }
    assert list(shapes(TwoMLPHead(8, 6))) == ["fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"]
    assert shapes(FastRCNNPredictor(6, 3))["bbox_pred.weight"] == (18, 6)
    assert [key for key in shapes(MaskRCNNHeads(4))][::2] == [f"{i}.0.weight" for i in range(4)]
    assert shapes(MaskRCNNPredictor(4, 5, 3)) == {
        **{"conv5_mask.weight": (4, 5, 2, 2, 2), "conv5_mask.bias": (5,)},
        **{"mask_fcn_logits.weight": (3, 5, 1, 1, 1), "mask_fcn_logits.bias": (3,)},
    }


def test_the_heads_keep_the_shapes():
    logits, offsets = RPNHead(4, 3)([torch.randn(2, 4, 3, 4, 5), torch.randn(2, 4, 2, 2, 2)])
    assert [tuple(t.shape) for t in (*logits, *offsets)] == [
        (2, 3, 3, 4, 5),
        (2, 3, 2, 2, 2),
        (2, 18, 3, 4, 5),
        (2, 18, 2, 2, 2),
    ]
    hidden = MaskRCNNHeads(4, (6, 5))(torch.randn(3, 4, 7, 7, 7))
    assert hidden.shape == (3, 5, 7, 7, 7)
    assert MaskRCNNPredictor(5, 5, 2)(hidden).shape == (3, 2, 14, 14, 14)
    assert MaskRCNNPredictor(5, 5, 2)(hidden[:0]).shape == (0, 2, 14, 14, 14)


def test_losses_of_classes_and_boxes_equal_the_recorded_ones(recorded):
    found = recorded("detection2d")

    def six(offsets):  # (dx, dy, dw, dh) for each class
        x, y, w, h = offsets.unflatten(-1, (-1, 4)).unbind(-1)
        return torch.stack([0 * x, y, x, 0 * x, h, w], -1).flatten(-2)

    classified, moved = fastrcnn_loss(
        found["cls_logits"], six(found["box_regression"]), [found["labels"]], [six(found["targets"])]
    )
    torch.testing.assert_close(classified, found["loss_cls"])
    torch.testing.assert_close(moved, found["loss_box"])


def test_the_loss_of_masks_equals_the_recorded_one(recorded, to_3d):
    found = recorded("detection2d")
    logits = found["mask_logits"][:, :, None].expand(-1, -1, 28, -1, -1)
    target = {"masks": found["gt_masks"][:, None].expand(-1, 28, -1, -1), "labels": found["mask_labels"]}
    boxes = to_3d(found["mask_props"], 28.0)
    loss = maskrcnn_loss(logits, [boxes], [target], [found["mask_matched"]], aligned=False)
    torch.testing.assert_close(loss, found["loss_mask"])


def test_losses_of_a_batch_are_the_sum_over_its_images(boxes_at):
    torch.manual_seed(0)
    logits, offsets = torch.randn(9, 3), torch.randn(9, 18)
    labels, wanted = [torch.tensor([0, 1, 2]), torch.tensor([2, 0, 0, 0, 1, 0])], [torch.randn(3, 6), torch.randn(6, 6)]
    both = fastrcnn_loss(logits, offsets, labels, wanted)
    first = fastrcnn_loss(logits[:3], offsets[:3], labels[:1], wanted[:1])
    second = fastrcnn_loss(logits[3:], offsets[3:], labels[1:], wanted[1:])
    for whole, one, other in zip(both, first, second, strict=True):
        torch.testing.assert_close(whole, one + other)


def proposer(**settings):
    generator = AnchorGenerator(((8,),), ((1.0,),))
    return RegionProposalNetwork(generator, RPNHead(2, 1), **settings)


def test_objectness_and_boxes_are_trained_on_what_the_thresholds_say():
    rpn = proposer(batch_size_per_image=10_000, positive_fraction=1.0)
    images, features = ImageList(torch.zeros(1, 1, 16, 16, 16), [(16, 16, 16)]), [torch.zeros(1, 2, 4, 4, 4)]
    anchors = rpn.anchor_generator(images, features)
    objects = torch.tensor([[4.0, 4, 4, 12, 12, 12]])  # exactly the anchor of cell (2, 2, 2)
    logits, deltas = torch.randn(1, 64), torch.randn(1, 64, 6)
    found = rpn.losses(logits, deltas, anchors, [{"boxes": objects}])
    at = 2 * 16 + 2 * 4 + 2
    beside = [at + step for step in (-16, 16, -4, 4, -1, 1)]  # IoU 1/3: neither object nor background
    true = torch.zeros(64)
    true[at] = 1
    used = torch.ones(64, dtype=torch.bool)
    used[beside] = False
    torch.testing.assert_close(found["objectness"][0], F.binary_cross_entropy_with_logits(logits[0, used], true[used]))
    wanted = F.smooth_l1_loss(deltas[0, at], torch.zeros(6), beta=1 / 9, reduction="sum") / used.sum()
    torch.testing.assert_close(found["rpn_box"][0], wanted)
    assert found["rpn_box"][1] == 1


def test_background_is_not_drawn_where_nothing_is_known():
    valid = torch.ones(4, 4, 4, dtype=torch.bool)
    valid[2:] = False
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 2], [2, 0, 0, 4, 2, 2], [2, 0, 0, 4, 2, 2], [-9, -9, -9, -1, -1, -1]])
    labels = torch.tensor([0, 0, 1, 0])
    assert unless_unknown(labels, boxes, valid).tolist() == [0, -1, 1, 0]
    assert unless_unknown(labels, boxes, None) is labels


def test_proposals_are_the_best_boxes_without_duplicates_and_inside():
    rpn = proposer(pre_nms_top_n={"training": 3, "testing": 64}, post_nms_top_n={"training": 64, "testing": 2})
    anchors = torch.tensor([[float(i), 0, 0, i + 4, 4, 4] for i in (-2, 0, 0.5, 8, 20, 11.9999)])
    logits = torch.tensor([[1.0, 5, 4, 3, 9, 8]])
    deltas = torch.zeros(1, 6, 6)
    sizes = [(12, 12, 12)]
    [training] = rpn.train().proposals(logits, deltas, [anchors], sizes, [6])
    assert training.tolist() == [[0, 0, 0, 4, 4, 4]]  # two of the best three lie outside
    [testing] = rpn.eval().proposals(logits, deltas, [anchors], sizes, [6])
    assert testing.tolist() == [[0, 0, 0, 4, 4, 4], [8, 0, 0, 12, 4, 4]]
    rpn.score_thresh = 0.99
    assert len(rpn.proposals(logits, deltas, [anchors], sizes, [6])[0]) == 1


def test_boxes_of_different_levels_do_not_suppress_each_other():
    rpn = proposer()
    anchors = torch.tensor([[0.0, 0, 0, 4, 4, 4]] * 2)
    [found] = rpn.proposals(torch.zeros(1, 2), torch.zeros(1, 2, 6), [anchors], [(8, 8, 8)], [1, 1])
    assert len(found) == 2


def heads(**settings):
    pool = MultiScaleRoIAlign(["a"], 2, 2)
    return RoIHeads(pool, TwoMLPHead(16, 4), FastRCNNPredictor(4, 3), **settings)


def test_proposals_are_drawn_with_their_objects_and_offsets():
    roi = heads(batch_size_per_image=8, positive_fraction=0.5)
    proposals = torch.tensor([[0.0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 5], [8, 8, 8, 10, 10, 10]])
    target = {"boxes": torch.tensor([[4.0, 4, 4, 8, 8, 8], [0, 0, 0, 4, 4, 4]]), "labels": torch.tensor([1, 2])}
    boxes, matched, labels, offsets = (one[0] for one in roi.drawn([proposals], [target]))
    assert labels.tolist() == [2, 2, 0, 1, 2]  # the last two are the objects themselves
    assert matched[labels > 0].tolist() == [1, 1, 0, 1]
    torch.testing.assert_close(
        roi.box_coder.decode_single(offsets[labels > 0], boxes[labels > 0]), target["boxes"][[1, 1, 0, 1]]
    )


@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.5, 0.2)])
def test_without_objects_all_proposals_are_background(thresholds):
    roi = heads(fg_iou_thresh=thresholds[0], bg_iou_thresh=thresholds[1])
    target = {"boxes": torch.zeros(0, 6), "labels": torch.zeros(0, dtype=torch.long)}
    _, _, [labels], [offsets] = roi.drawn([torch.tensor([[0.0, 0, 0, 4, 4, 4]])], [target])
    assert labels.tolist() == [0]
    assert offsets.tolist() == [[0] * 6]


def test_detections_are_of_every_class_and_the_best_come_first():
    roi = heads(score_thresh=0.1, nms_thresh=0.5, detections_per_img=3)
    boxes = torch.tensor([[0.0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 4.1], [6, 6, 6, 9, 9, 9]])
    logits = torch.tensor([[0.0, 2, 1.5], [0, 3, 0], [9, 0, 0]])
    [found] = roi.detections(logits, torch.zeros(3, 18), [boxes], [(8, 8, 8)])
    assert found["labels"].tolist() == [1, 2]  # the second suppresses the first in class 1, not in class 2
    torch.testing.assert_close(found["boxes"], boxes[[1, 0]])
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


def test_each_class_has_its_own_box():
    roi = heads(score_thresh=0.1)
    offsets = torch.zeros(1, 3, 6)
    offsets[0, :, 2] = torch.tensor([0.0, 5, 10])  # half a side and a whole side in x: weights are 10
    [found] = roi.detections(torch.zeros(1, 3), offsets.flatten(1), [torch.tensor([[0.0, 0, 0, 4, 4, 4]])], [(9, 9, 9)])
    assert sorted(zip(found["labels"].tolist(), found["boxes"][:, 2].tolist(), strict=True)) == [(1, 2.0), (2, 4.0)]
