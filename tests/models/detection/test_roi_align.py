"""RoIAlign against recorded figures, a slow reference and worked-out cases."""

from __future__ import annotations

import itertools
from math import ceil, floor

import numpy as np
import pytest
import torch

from deepem.models.detection import samples as module
from deepem.models.detection.roi_align import MultiScaleRoIAlign, align_masks, roi_align
from deepem.utils.errors import InputError


def sample(volume, at):
    """A volume interpolated at a point; 0 further than a voxel outside."""
    lows, parts = [], []
    for value, length in zip(at, volume.shape, strict=True):
        if value < -1 or value > length:
            return 0.0
        value = min(max(value, 0), length - 1)
        lows.append(floor(value))
        parts.append(value - floor(value))
    total = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.prod([p if c else 1 - p for c, p in zip(corner, parts, strict=True)])
        if weight:
            total += weight * volume[tuple(low + c for low, c in zip(lows, corner, strict=True))]
    return total


def reference(features, rois, bins, scales, ratio, aligned):
    out = np.zeros((len(rois), features.shape[1], *bins))
    for k, roi in enumerate(rois):
        low = [roi[1 + a] * scales[a] - 0.5 * aligned for a in range(3)]
        high = [roi[4 + a] * scales[a] - 0.5 * aligned for a in range(3)]
        steps = [(h - b if aligned else max(h - b, 1)) / n for b, h, n in zip(low, high, bins, strict=True)]
        counts = [ratio if ratio > 0 else ceil(step) for step in steps]
        for cell in itertools.product(*map(range, bins)):
            values = []
            for inner in itertools.product(*map(range, counts)):
                at = [low[a] + (cell[a] + (inner[a] + 0.5) / counts[a]) * steps[a] for a in range(3)]
                values.append([sample(channel, at) for channel in features[int(roi[0])]])
            out[(k, slice(None), *cell)] = np.mean(values, 0) if values else 0
    return out


ROIS = torch.tensor(
    [
        [0, 1.0, 2, 3, 5, 7, 9],
        [1, -3, -2, 0, 2, 3, 4],  # sticks out in front
        [0, 4, 6, 8, 12, 14, 15],  # and behind
        [1, 2.2, 3.3, 4.4, 2.3, 3.5, 4.9],  # smaller than a voxel
        [0, 30, 30, 30, 40, 40, 40],  # outside
        [1, 0, 0, 0, 8, 10, 12],
        [0, 3, 3, 3, 3, 3, 3],  # nothing
    ]
)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [2, 1, -1])
@pytest.mark.parametrize("entries", [1, 1 << 25])
def test_it_equals_the_slow_reference(monkeypatch, ratio, aligned, entries):
    monkeypatch.setattr(module, "ENTRIES", entries)
    features = torch.randn(2, 2, 8, 10, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bins, scales = (2, 3, 2), (0.5, 1.0, 0.75)
    found = roi_align(features, ROIS.double(), bins, scales, ratio, aligned)
    wanted = reference(features.numpy(), ROIS.double().numpy(), bins, scales, ratio, aligned)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_a_box_with_more_voxels_than_samples_equals_the_reference():
    features = torch.randn(1, 1, 24, 20, 22, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rois = torch.tensor([[0, 0.3, 0.2, 0.1, 23.9, 19, 21.5], [0, 2, 2, 2, 20, 17, 19.0]], dtype=torch.float64)
    for aligned in (False, True):
        found = roi_align(features, rois, 2, 1.0, 2, aligned)
        wanted = reference(features.numpy(), rois.numpy(), (2, 2, 2), (1, 1, 1), 2, aligned)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
def test_values_and_gradients_equal_the_recorded_ones(recorded, to_3d, aligned):
    found = recorded("roi_align2d")
    features = found["x"][:, :, None].clone().requires_grad_()
    rois = torch.cat([found["rois_b_xyxy"][:, :1], to_3d(found["rois_b_xyxy"][:, 1:], 4.0)], 1)
    made = roi_align(features, rois, 7, float(found["spatial_scale"]), int(found["sampling_ratio"]), aligned)
    torch.testing.assert_close(made.mean(2), found[f"y_{aligned}"], rtol=1e-4, atol=1e-5)
    (made.mean(2) * found["g"]).sum().backward()
    torch.testing.assert_close(features.grad[:, :, 0], found[f"grad_{aligned}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [2, 0])
def test_the_gradient_is_that_of_the_values(ratio):
    features = torch.randn(2, 2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.3, 0.2, 1, 3.4, 4.1, 5], [1, -1, 1, 2, 2, 3, 7], [1, 0, 0, 0, 4, 5, 6]]).double()
    assert torch.autograd.gradcheck(lambda f: roi_align(f, rois, 2, 1.0, ratio, True), features)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bins_are_centred_on_their_voxels(axis):
    view = [1, 1, 1, 1, 1]
    view[axis + 2] = 10
    features = torch.arange(10.0).view(view).expand(1, 1, 10, 10, 10)
    found = roi_align(features, torch.tensor([[0, 2.0, 2, 2, 6, 6, 6]]), 4, 1.0, 1, True)
    along = found[0, 0].movedim(axis, 0)[:, 0, 0]
    assert along.tolist() == [2, 3, 4, 5]


def test_boxes_can_be_a_list_and_none_can_be_there():
    features = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    boxes = ROIS[:, 1:]
    rois = torch.cat([torch.tensor([0, 0, 1.0])[:, None], boxes[:3]], 1)
    assert torch.equal(roi_align(features, [boxes[:2], boxes[2:3]], 2), roi_align(features, rois, 2))
    none = roi_align(features, [boxes[:0], boxes[:0]], (1, 2, 3))
    assert none.shape == (0, 3, 1, 2, 3)
    none.sum().backward()
    assert not features.grad.any()
    with pytest.raises(InputError, match="rois: got shape"):
        roi_align(features, torch.zeros(2, 5), 2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_interpolated_in_full(kind):
    features = torch.randn(2, 3, 8, 10, 12).to(kind)
    with torch.autocast("cpu", torch.bfloat16):
        found = roi_align(features, ROIS, 3, 1.0, 2, True)
    assert found.dtype == kind
    assert torch.equal(found, roi_align(features.float(), ROIS, 3, 1.0, 2, True).to(kind))


def test_boxes_that_are_no_numbers_do_not_break_it():
    bad = torch.tensor([[0, float("nan"), 0, 0, float("inf"), 3, 3], [0, 1, 1, 1, 2, 2, 2]])
    found = roi_align(torch.ones(1, 1, 4, 4, 4), bad, 2, 1.0, 2, True)
    assert torch.equal(found[1], torch.ones(1, 2, 2, 2))


def test_masks_of_ids_are_aligned_as_masks_are():
    generator = torch.Generator().manual_seed(0)
    volume = torch.randint(0, 4, (2, 8, 10, 12), generator=generator)
    channels, ids = torch.tensor([0, 1, 1, 0, 0, 1, 0]), torch.tensor([1, 2, 3, 2, 1, 1, 3])
    masks = (volume[channels] == ids.view(-1, 1, 1, 1)).float()
    rois = torch.cat([torch.arange(7.0)[:, None], ROIS[:, 1:]], 1)
    found = align_masks(volume, ROIS[:, 1:], channels, ids, (3, 4, 5))
    torch.testing.assert_close(found, roi_align(masks[:, None], rois, (3, 4, 5), 1.0, -1, True)[:, 0])
    assert align_masks(volume, ROIS[:0, 1:], channels[:0], ids[:0], 4).shape == (0, 4, 4, 4)


@pytest.mark.parametrize(
    ("side", "level"), [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (5000, 3)]
)
def test_a_box_is_read_from_the_level_of_its_size(side, level):
    pool = MultiScaleRoIAlign(["p2", "p3", "p4", "p5"], 2, 2)
    boxes = torch.tensor([[0.0, 0, 0, side, side, side], [0, 0, 0, 2.0 * side, side, side / 2]])
    assert pool.levels(boxes, [(1 / s,) * 3 for s in (4, 8, 16, 32)]).tolist() == [level, level]


def test_features_of_several_levels_come_back_in_the_order_of_the_boxes():
    pool = MultiScaleRoIAlign(["a", "b"], 2, 2, canonical_scale=8, canonical_level=2)
    maps = {"a": torch.randn(2, 3, 8, 8, 8), "b": torch.randn(2, 3, 4, 4, 4), "other": torch.zeros(1)}
    small, large = torch.tensor([[1.0, 1, 1, 4, 4, 4]]), torch.tensor([[0.0, 0, 0, 15, 15, 15]])
    found = pool(maps, [torch.cat([large, small]), small], [(16, 16, 16)] * 2)
    wanted = [
        roi_align(maps["b"], [large, small[:0]], 2, 0.25, 2, True),
        roi_align(maps["a"], [small, small], 2, 0.5, 2, True),
    ]
    torch.testing.assert_close(found, torch.cat(wanted))


def test_strides_that_are_no_powers_of_two_can_be_given():
    maps = {"a": torch.arange(5.0).view(1, 1, 1, 1, 5).expand(1, 1, 5, 5, 5)}
    boxes = [torch.tensor([[3.0, 3, 3, 12, 12, 12]])]
    found = MultiScaleRoIAlign(["a"], 3, 1, strides={"a": (3, 3, 3)})(maps, boxes, [(15, 15, 15)])
    assert found[0, 0, 0, 0].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="featmap_names"):
        MultiScaleRoIAlign(["b"], 3, 1)(maps, boxes, [(15, 15, 15)])
