"""Frames of boxes and colours of objects, as they are drawn."""

from __future__ import annotations

import numpy as np

from deepem.utils.frames import boxes_of, colours_of, frames


def test_boxes_are_half_open_and_by_rising_id():
    ids = np.zeros((4, 6, 12), np.int64)
    ids[0:1, 2:4, 5:9] = 2**40
    ids[3, 5, 11] = 3
    assert boxes_of(ids).tolist() == [[3, 5, 11, 4, 6, 12], [0, 2, 5, 1, 4, 9]]
    assert boxes_of(np.ones((2, 3, 4), np.uint8)).tolist() == [[0, 0, 0, 2, 3, 4]]
    assert boxes_of(np.zeros((2, 3, 4), np.uint8)).shape == (0, 6)


def test_a_frame_is_one_voxel_wide_in_each_section_of_its_box_and_clipped():
    drawn = frames([[1, 1, 2, 3, 5, 7], [2.4, -3, 6, 9, 2, 20]], (4, 6, 8))
    assert not drawn[0].any()
    assert drawn[1].tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 1, 0],
        [0, 0, 1, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1, 0],
        [0, 0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert drawn[3].tolist()[:3] == [[0, 0, 0, 0, 0, 0, 2, 2], [0, 0, 0, 0, 0, 0, 2, 2], [0] * 8]
    assert not frames([[0, 3, 3, 2, 3, 5]], (4, 6, 8)).any(), "a box without volume has none"


def test_colours_are_the_same_wherever_an_object_is_and_differ_between_neighbours():
    ids = np.array([[0, 1, 2], [3, 1, 2**40]])
    found = colours_of(ids)
    assert not found[0, 0].any()
    assert (found[0, 1] == found[1, 1]).all()
    assert len({tuple(c) for c in colours_of(np.arange(1, 50))}) == 49
    assert (colours_of(np.arange(1, 50)).max(-1) > 0.6).all()
    assert found.shape == (2, 3, 3)
    assert 0 <= found.min() <= found.max() <= 1
