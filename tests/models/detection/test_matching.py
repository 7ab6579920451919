"""Anchors, coder, matcher and sampler: recorded figures, inverses, brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.models.detection import matcher as matching
from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.boxes import box_iou
from deepem.models.detection.coder import BoxCoder
from deepem.models.detection.matcher import Matcher
from deepem.models.detection.sampler import BalancedPositiveNegativeSampler
from deepem.models.detection.transform import ImageList
from deepem.utils.errors import InputError


def flat(boxes):
    """(z1, y1, x1, z2, y2, x2) as (x1, y1, x2, y2)."""
    return boxes[:, [2, 1, 5, 4]]


def test_anchors_equal_the_recorded_ones_in_each_section(recorded):
    found = recorded("detection2d")
    ratios = (found["aspect_ratios"].tolist(),) * 2
    generator = AnchorGenerator([[float(s)] for s in found["anchor_sizes"]], ratios)
    images = ImageList(torch.zeros(1, 1, 4, 64, 48), [(4, 64, 48)])
    [anchors] = generator(images, [torch.zeros(1, 1, 1, 16, 12), torch.zeros(1, 1, 1, 8, 6)])
    torch.testing.assert_close(flat(anchors), found["anchors"])
    assert anchors[0, [0, 3]].tolist() == [-4, 4]
    assert anchors[-1, [0, 3]].tolist() == [-8, 8]


def test_anchors_run_over_cells_in_z_y_x_and_then_over_shapes():
    generator = AnchorGenerator(((4, 8),), ((1.0, 4.0),), ((1.0, 0.5),))
    assert generator.num_anchors_per_location() == [8]
    images = ImageList(torch.zeros(2, 1, 4, 6, 16), [(4, 6, 16), (3, 6, 9)])
    first, second = generator(images, [torch.zeros(2, 5, 2, 3, 4)])
    assert torch.equal(first, second)
    centres = ((first[:, :3] + first[:, 3:]) / 2).view(2, 3, 4, 8, 3)
    assert centres[1, 2, 3].tolist() == [[2, 4, 12]] * 8
    sides = (first[:, 3:] - first[:, :3])[:8].tolist()
    assert sides == [[4, 4, 4], [8, 8, 8], [4, 8, 2], [8, 16, 4], [2, 4, 4], [4, 8, 8], [2, 8, 2], [4, 16, 4]]


def test_anchors_in_nm_follow_the_voxel_size():
    generator = AnchorGenerator(((2800.0,),), ((1.0,),), voxel_size=(280, 140, 70))
    assert (generator.cells[0][:, 3:] - generator.cells[0][:, :3]).tolist() == [[10, 20, 40]]
    thin = AnchorGenerator(((1.0,),), ((1.0,),)).cells[0]
    assert (thin[:, 3:] > thin[:, :3]).all()


def test_anchors_that_do_not_fit_the_maps_are_refused():
    with pytest.raises(InputError, match="2 sizes, 1 aspect_ratios"):
        AnchorGenerator(((4,), (8,)), ((1.0,),))
    with pytest.raises(InputError, match="above 0"):
        AnchorGenerator(((0.0,),), ((1.0,),))
    with pytest.raises(InputError, match="1 feature maps"):
        AnchorGenerator(((4,),), ((1.0,),))(ImageList(torch.zeros(1, 1, 4, 4, 4), [(4, 4, 4)]), [])


def test_offsets_equal_the_recorded_ones(recorded, to_3d):
    found = recorded("detection2d")
    x, y, w, h = found["coder_weights"].tolist()
    coder = BoxCoder((1.0, y, x, 1.0, h, w))
    assert coder.bbox_xform_clip == pytest.approx(float(found["clip"]))
    boxes, proposals = to_3d(found["ref_boxes"]), to_3d(found["proposals"])
    offsets = coder.encode_single(boxes, proposals)
    torch.testing.assert_close(offsets[:, [2, 1, 5, 4]], found["enc"], rtol=1e-4, atol=1e-5)
    assert not offsets[:, [0, 3]].any()
    torch.testing.assert_close(flat(coder.decode_single(offsets * 3, proposals)), found["dec"], rtol=1e-4, atol=1e-3)


def test_decoding_undoes_encoding_for_every_class(boxes_at):
    coder = BoxCoder((10.0, 10.0, 10.0, 5.0, 5.0, 5.0))
    boxes, proposals = boxes_at(9, seed=1), boxes_at(9, seed=2)
    first, second = coder.encode([boxes[:4], boxes[4:]], [proposals[:4], proposals[4:]])
    offsets = torch.cat([first, second])
    both = torch.cat([offsets, torch.zeros_like(offsets)], 1)
    decoded = coder.decode(both, [proposals[:4], proposals[4:]])
    torch.testing.assert_close(decoded[:, 0], boxes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoded[:, 1], proposals, rtol=1e-4, atol=1e-4)


def test_offsets_stay_finite():
    coder = BoxCoder((1.0,) * 6)
    flat_box = torch.tensor([[1.0, 1, 1, 1, 3, 3]])
    assert coder.encode_single(flat_box, flat_box).isfinite().all()
    assert coder.decode_single(torch.full((1, 6), 1000.0), torch.tensor([[0.0, 0, 0, 2, 2, 2]])).isfinite().all()


def test_matches_equal_the_recorded_ones(recorded, to_3d):
    found = recorded("detection2d")
    true, anchors = to_3d(found["gt"]), to_3d(found["anchors"])
    matcher = Matcher(0.7, 0.3, True)
    assert torch.equal(matcher(box_iou(true, anchors)), found["match_rpn"])
    assert torch.equal(matcher.match(true, anchors), found["match_rpn"])
    boxes = torch.cat([true, to_3d(recorded("boxes2d")["boxes_xyxy"][20:60])])
    assert torch.equal(Matcher(0.5, 0.5)(box_iou(true, boxes)), found["match_box"])


@given(st.integers(0, 6), st.integers(0, 40), st.sampled_from([1, 7, 1 << 24]), st.booleans(), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_matching_by_pieces_is_matching_at_once(objects, predictions, pairs, low_quality, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 8, (objects + predictions, 3), generator=generator).float()
    boxes = torch.cat([low, low + torch.randint(0, 5, low.shape, generator=generator)], 1)
    matcher = Matcher(0.6, 0.3, low_quality, touching=seed % 2 == 0)
    held, matching.PAIRS = matching.PAIRS, pairs
    try:
        found = matcher.match(boxes[:objects], boxes[objects:])
    finally:
        matching.PAIRS = held
    assert torch.equal(found, matcher(box_iou(boxes[:objects], boxes[objects:])))


def test_an_object_claims_its_closest_predictions_and_if_told_none_that_it_does_not_touch():
    overlaps = torch.tensor([[0.1, 0.2, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0], [0.8, 0.25, 0.0, 0.5]])
    assert Matcher(0.7, 0.3, True, touching=True)(overlaps).tolist() == [2, 2, 0, -2]
    assert Matcher(0.7, 0.3, True)(overlaps).tolist() == [2, 2, 0, 2]
    assert Matcher(0.7, 0.3)(overlaps).tolist() == [2, -1, -1, -2]
    assert Matcher(0.7, 0.3, True)(overlaps[:0]).tolist() == [-1] * 4


def test_thresholds_the_wrong_way_round_are_refused():
    with pytest.raises(InputError, match="low_threshold"):
        Matcher(0.3, 0.7)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9), st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_the_sampler_draws_what_it_may_and_as_many_as_it_can(positive, negative, ignored, count):
    labels = torch.cat([torch.full((positive,), 3), torch.zeros(negative), torch.full((ignored,), -1)]).long()
    labels = labels[torch.randperm(len(labels))]
    [objects], [background] = BalancedPositiveNegativeSampler(count, 0.25)([labels])
    assert (labels[objects] == 3).all()
    assert (labels[background] == 0).all()
    assert objects.sum() == min(positive, int(count * 0.25))
    assert background.sum() == min(negative, count - int(objects.sum()))


def test_the_sampler_draws_by_its_generator():
    labels = [torch.zeros(50).long(), torch.ones(50).long()]

    def draw(seed):
        drawn = BalancedPositiveNegativeSampler(8, 0.5, torch.Generator().manual_seed(seed))(labels)
        return torch.stack([torch.stack(masks) for masks in drawn])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
