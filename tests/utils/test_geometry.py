"""Boxes of voxels: what they hold, checked voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepem.utils.geometry import Box, touched, vec3

SMALL = st.integers(-4, 4)
VEC = st.tuples(SMALL, SMALL, SMALL)
SIZE = st.tuples(*[st.integers(1, 5)] * 3)
BOX = st.builds(Box.of_size, VEC, SIZE)


def voxels(box: Box) -> set[tuple[int, int, int]]:
    return {vec3(np.add(box.begin, at)) for at in np.ndindex(box.size)}


@given(BOX)
def test_size_and_count(box):
    assert box.voxels == len(voxels(box)) == np.prod(box.size)
    begin, end = box
    assert Box(begin, end) == box


@given(BOX, BOX)
def test_intersection_holds_the_voxels_of_both(a, b):
    both = a.intersect(b)
    assert (voxels(both) if both else set()) == voxels(a) & voxels(b)
    assert both == b.intersect(a)


@given(BOX, BOX)
def test_contains(a, b):
    assert a.contains(b) == (voxels(b) <= voxels(a))


@given(BOX, VEC)
def test_shift(box, by):
    assert voxels(box.shift(by)) == {vec3(np.add(v, by)) for v in voxels(box)}


@given(VEC, SIZE)
def test_a_patch_around_a_voxel_starts_half_its_size_before_it(centre, size):
    box = Box.around(centre, size)
    assert box.size == size
    assert [c - b for c, b in zip(centre, box.begin, strict=True)] == [s // 2 for s in size]


@given(st.builds(Box.of_size, SIZE, SIZE))
def test_slices_cut_those_voxels(box):
    where = np.moveaxis(np.indices((10, 10, 10)), 0, -1)[box.slices()]
    assert {vec3(v) for v in where.reshape(-1, 3)} == voxels(box)


def test_an_empty_box_does_not_exist():
    with pytest.raises(ValueError, match="empty box"):
        Box((0, 0, 0), (3, 0, 3))
    with pytest.raises(ValueError, match="empty box"):
        Box.of_size((0, 0, 0), (1, -1, 1))


def test_a_box_is_made_of_plain_integers():
    box = Box(np.array([1, 2, 3]), np.array([4, 5, 6]))  # type: ignore[arg-type]
    assert box == Box((1, 2, 3), (4, 5, 6))
    assert all(type(v) is int for v in (*box.begin, *box.end))
    assert hash(box) == hash(Box((1, 2, 3), (4, 5, 6)))
    with pytest.raises(ValueError, match="unpack"):
        vec3((1, 2))


@given(BOX, SIZE, BOX)
def test_chunks_part_the_whole_and_a_box_touches_those_that_share_a_voxel(whole, size, other):
    every = list(touched(whole, size, whole))
    assert sorted(voxel for chunk in every for voxel in voxels(chunk)) == sorted(voxels(whole))
    box = whole.intersect(other)
    if box is not None:
        assert list(touched(box, size, whole)) == [chunk for chunk in every if chunk.intersect(box)]
