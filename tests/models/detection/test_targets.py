"""Objects from label volumes, and images brought to the network's size and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deepem.models.detection import targets as module
from deepem.models.detection.boxes import masks_to_boxes
from deepem.models.detection.masks import label_volume, mask_in_box, paste_masks_in_volume
from deepem.models.detection.roi_align import align_masks
from deepem.models.detection.targets import from_labels, masks_of, placed
from deepem.models.detection.transform import GeneralizedRCNNTransform, resize_target
from deepem.utils.errors import InputError


@given(st.integers(0, 999), st.sampled_from([0, 5, 1 << 22]), st.sampled_from([1, 2]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_objects_are_those_of_the_labels(seed, few, channels, huge):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (channels, 3, 4, 5), generator=generator)
    labels[labels == 4] = 2**40 if huge else 9
    held, module.FEW = module.FEW, few
    try:
        found = from_labels(labels)
    finally:
        module.FEW = held
    pairs = [(c, i) for c in range(channels) for i in labels[c].unique().tolist() if i]
    assert list(zip(found["channels"].tolist(), found["ids"].tolist(), strict=True)) == pairs
    assert found["labels"].tolist() == [c + 1 for c, _ in pairs]
    masks = torch.stack([labels[c] == i for c, i in pairs]) if pairs else torch.zeros(0, 3, 4, 5).bool()
    assert torch.equal(masks_of(found), masks)
    assert torch.equal(found["boxes"], masks_to_boxes(masks))
    assert torch.equal(found["voxels"], masks.sum((1, 2, 3)))
    assert found["valid"] is None


def test_volumes_without_objects_and_full_of_one():
    none = from_labels(torch.zeros(1, 2, 3, 4, dtype=torch.int32))
    assert none["boxes"].shape == (0, 6)
    assert none["labels"].shape == (0,)
    full = from_labels(torch.full((2, 3, 4), 7, dtype=torch.uint8))
    assert full["boxes"].tolist() == [[0, 0, 0, 2, 3, 4]]
    with pytest.raises(InputError, match="whole numbers"):
        from_labels(torch.zeros(2, 3, 4))


def test_classes_come_from_a_table_and_what_is_not_in_it_is_unknown():
    labels = torch.tensor([[[[1, 1, 0, 5, 5, 8, 0, 9]]]])
    classes = torch.tensor([[9, 1], [1, 2], [0, 0], [8, 0], [0, 0]])
    found = from_labels(labels, classes=classes)
    assert found["ids"].tolist() == [1, 9]
    assert found["labels"].tolist() == [2, 1]
    assert found["valid"][0, 0].tolist() == [True, True, True, False, False, False, True, True]
    nothing = from_labels(labels, classes=torch.zeros(3, 2, dtype=torch.long))
    assert len(nothing["ids"]) == 0


def test_an_object_is_one_if_half_of_it_is_known_and_it_is_large_enough():
    labels = torch.tensor([[[[1, 1, 1, 1, 2, 2, 2, 0, 3, 4, 4]]]])
    mask = torch.tensor([[[0.0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1]]])
    found = from_labels(labels, mask=mask, min_voxels=2)
    assert found["ids"].tolist() == [1, 4]
    assert found["valid"][0, 0].tolist() == [False, False, True, True, False, False, False, True, False, True, True]


def test_labels_of_the_centre_are_placed_there():
    labels = torch.arange(1, 9).view(1, 2, 2, 2)
    whole, known = placed(labels, None, (4, 5, 2))
    assert torch.equal(whole[:, 1:3, 1:3, 0:2], labels)
    assert known.sum() == 8
    assert whole.sum() == labels.sum()
    mask = torch.ones(2, 2, 2)
    mask[0] = 0
    assert placed(labels, mask, (4, 5, 2))[1].sum() == 4
    assert placed(labels, None, (2, 2, 2))[0] is labels


def test_an_image_is_resized_by_its_shorter_side_within_the_longest():
    transform = GeneralizedRCNNTransform(20, 50, size_divisible=8)
    assert transform.resized((10, 20, 16)) == (20, 40, 32)
    assert transform.resized((10, 50, 16)) == (10, 50, 16)
    assert GeneralizedRCNNTransform(None, None).resized((3, 5, 7)) == (3, 5, 7)
    assert GeneralizedRCNNTransform(None, 6).resized((4, 12, 8)) == (2, 6, 4)
    several = GeneralizedRCNNTransform((10, 20), None)
    assert {several.resized((10, 10, 10))[0] for _ in range(50)} == {10, 20}
    assert {several.eval().resized((10, 10, 10))[0] for _ in range(9)} == {20}


def test_images_are_normalised_resized_and_padded():
    images = [torch.randn(2, 4, 6, 5), torch.randn(2, 8, 7, 6)]
    transform = GeneralizedRCNNTransform(8, None, (0.5, -1.0), (2.0, 0.5), size_divisible=(2, 8, 4))
    batch, none = transform(images)
    assert none is None
    assert batch.image_sizes == [(8, 12, 10), (10, 9, 8)]
    assert tuple(batch.tensors.shape) == (2, 2, 10, 16, 12)
    normal = torch.stack([(images[0][0] - 0.5) / 2, (images[0][1] + 1) / 0.5])
    wanted = F.interpolate(normal[None], size=(8, 12, 10), mode="trilinear")[0]
    torch.testing.assert_close(batch.tensors[0, :, :8, :12, :10], wanted)
    assert not batch.tensors[0, :, 8:].any()
    assert not batch.tensors[0, :, :, 12:].any()


def test_objects_are_resized_with_their_image():
    labels = torch.zeros(1, 6, 8, 10, dtype=torch.long)
    labels[0, 1:3, 2:6, 4:10] = 5
    target = from_labels(labels, mask=torch.ones(6, 8, 10).index_fill_(0, torch.tensor([5]), 0))
    larger = resize_target(target, (6, 8, 10), (12, 8, 5))
    assert larger["boxes"].tolist() == [[2, 2, 2, 6, 6, 5]]
    assert torch.equal(masks_to_boxes(masks_of(larger)), larger["boxes"])
    assert larger["valid"].shape == (12, 8, 5)
    as_masks = resize_target({"boxes": target["boxes"], "masks": masks_of(target)}, (6, 8, 10), (12, 8, 5))
    assert torch.equal(as_masks["masks"], masks_of(larger))
    assert target["boxes"].tolist() == [[1, 2, 4, 3, 6, 10]]


def test_wrong_settings_of_images_are_refused():
    with pytest.raises(InputError, match="image_std"):
        GeneralizedRCNNTransform(None, None, (0.0,), (0.0,))
    with pytest.raises(InputError, match="min_size"):
        GeneralizedRCNNTransform(0, None)
    with pytest.raises(InputError, match="image_mean"):
        GeneralizedRCNNTransform(None, None, (0.0, 1.0), (1.0,))([torch.zeros(3, 2, 2, 2)])


def ball(size, centre, radius):
    axes = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2


def test_a_mask_comes_back_from_its_bins():
    size, bins = (20, 24, 28), 28
    masks = torch.stack([ball(size, (10, 12, 13), 8), ball(size, (4, 20, 20), 7)])  # the second is cut by two faces
    boxes = masks_to_boxes(masks)
    probability = align_masks(masks, boxes, torch.arange(2), torch.ones(2).long(), bins)
    found = paste_masks_in_volume(probability, boxes, size)
    overlap = (found & masks).sum((1, 2, 3)) / (found | masks).sum((1, 2, 3))
    assert (overlap > 0.97).all()
    assert torch.equal(masks_to_boxes(found), boxes)


def test_a_full_mask_fills_the_voxels_whose_centres_its_box_holds():
    found = paste_masks_in_volume(
        torch.ones(3, 4, 4, 4),
        torch.tensor([[1, 2, 3, 3, 5, 4], [0.6, 0, 0, 1.4, 2, 9], [-3, -1, 2.5, 1.5, 0.51, 3.5]]),
        (4, 5, 6),
    )
    wanted = torch.zeros(3, 4, 5, 6, dtype=torch.bool)
    wanted[0, 1:3, 2:5, 3:4] = True
    wanted[2, 0:1, 0:1, 2:3] = True  # 0.5 lies in [-3, 1.5), [-1, 0.51); 2.5 in [2.5, 3.5)
    assert torch.equal(found, wanted)
    assert mask_in_box(torch.ones(4, 4, 4), torch.tensor([8.0, 0, 0, 9, 1, 1]), (4, 5, 6)) is None


def test_labels_show_the_better_object_where_two_overlap():
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 3], [0, 0, 2, 1, 1, 5], [0, 0, 4, 1, 1, 6]])
    labels = label_volume(torch.ones(3, 2, 2, 2), boxes, torch.tensor([0.5, 0.9, 0.7]), (1, 1, 7))
    assert labels[0, 0].tolist() == [1, 1, 2, 2, 2, 3, 0]
