"""Boxes of objects turn with their masks: half-open boxes, flipped, are those of the flipped masks."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.data.transform import FlipRotate
from deepem.data.transform.base import Spec
from deepem.utils.frames import boxes_of


@pytest.mark.parametrize(("length", "box", "turned"), [(10, (2, 5), (5, 8)), (1, (0, 1), (0, 1))])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_box_is_that_of_the_flipped_mask(length, box, turned, axis):
    size = [3, 3, 3]
    size[axis] = length
    ids = np.zeros(size, np.int32)
    where = [slice(None)] * 3
    where[axis] = slice(*box)
    ids[tuple(where)] = 1
    [found] = boxes_of(np.flip(ids, axis)).tolist()
    assert (found[axis], found[axis + 3]) == turned


def test_every_pose_of_a_sample_keeps_image_and_objects_together():
    rng, ids = np.random.default_rng(0), np.zeros((1, 6, 8, 8), np.int32)
    ids[0, 1:3, 2:7, 0:1] = 4
    ids[0, 5:6, 7:8, 3:8] = 9
    spec = Spec({"img": (6, 8, 8), "seg": (6, 8, 8)}, ("img",), ("seg",))
    poses = set()
    for _ in range(40):
        _, apply = FlipRotate().prepare(spec, rng)
        sample = apply({"img": ids.astype(np.float32) / 9, "seg": ids})
        poses.add(np.ascontiguousarray(sample["seg"]).tobytes())
        boxes = boxes_of(np.asarray(sample["seg"])[0])
        assert np.array_equal(boxes, boxes_of(np.rint(np.asarray(sample["img"])[0] * 9).astype(int)))
        assert sorted(np.prod(boxes[:, 3:] - boxes[:, :3], 1).tolist()) == [5, 10]
    assert len(poses) > 8
