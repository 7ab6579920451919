"""Objects found tile by tile are those of the volume, however it is cut into tiles."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.models.detection import tiles as t
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

sizes = st.tuples(*[st.integers(1, 40)] * 3)
LONGEST = 6


@st.composite
def grids(draw, least=0):
    size = draw(sizes)
    overlap = draw(st.tuples(*[st.integers(least, least + 4)] * 3))
    tile = tuple(o + draw(st.integers(1, 12)) for o in overlap)
    return size, tile, overlap


@given(grids())
@settings(deadline=None, max_examples=80)
def test_cores_cover_every_voxel_once_and_lie_in_the_middle_of_their_tiles(grid):
    size, tile, overlap = grid
    count = np.zeros(size, int)
    for one in t.tiles(size, tile, overlap):
        count[one.core.slices()] += 1
        assert one.box.contains(one.core)
        for axis in range(3):
            assert one.box.size[axis] == min(tile[axis], size[axis])
            assert one.box.begin[axis] == 0 or one.core.begin[axis] - one.box.begin[axis] >= overlap[axis] // 2
            end = one.box.end[axis] - one.core.end[axis]
            assert one.box.end[axis] == size[axis] or end >= overlap[axis] // 2
    assert (count == 1).all()


def ellipsoids(size, seed, count=12):
    """Labels of objects of at most LONGEST voxels along each axis, apart from each other."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint64)
    for number in range(1, count + 1):
        sides = [int(rng.integers(1, min(LONGEST, n) + 1)) for n in size]
        begin = [int(rng.integers(0, n - s + 1)) for n, s in zip(size, sides, strict=True)]
        axes = np.ogrid[tuple(slice(0, s) for s in sides)]
        ball = sum(((a - (s - 1) / 2) / (s / 2)) ** 2 for a, s in zip(axes, sides, strict=True)) <= 1
        around = labels[tuple(slice(max(b - 1, 0), b + s + 1) for b, s in zip(begin, sides, strict=True))]
        if ball.any() and not around.any():
            labels[tuple(slice(b, b + s) for b, s in zip(begin, sides, strict=True))][ball] = number
    return labels


def seen(labels, grid, size, jitter=None, margin=4):
    """What each tile hands on if it finds all that is in it, its masks moved by 0 or 1 voxel if there is jitter."""
    found = []
    for number, tile in enumerate(grid):
        here, own = labels[tile.box.slices()], []
        for n, label in enumerate(np.unique(here[here > 0]).tolist()):
            mask = here == label
            if jitter is not None:
                by = jitter.integers(0, 2, 3)
                mask = np.pad(mask, 1)[tuple(slice(b, b + n) for b, n in zip(by, mask.shape, strict=True))]
            own.append(t.found_in((number, n), tile, size, tile.box.begin, mask, 1 / (1 + label), 1))
        found.append(t.reported([one for one in own if one is not None], tile, margin))
    return found


@given(grids(least=LONGEST), st.integers(0, 999), st.integers(0, 6))
@settings(deadline=None, max_examples=30)
def test_every_object_is_there_once_and_whole(grid, seed, margin):
    size, *cut = grid
    labels, placed = ellipsoids(size, seed), t.tiles(size, *cut)
    found = t.merged(placed, seen(labels, placed, size, margin=margin))
    assert len(found) == len(np.unique(labels[labels > 0]))
    painted = t.painted(Box((0, 0, 0), size), enumerate(found, 1))
    assert np.array_equal(painted > 0, labels > 0)
    pairs = np.unique(np.stack([painted, labels]).reshape(2, -1), axis=1)
    assert len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_tiles_that_disagree_by_a_voxel_lose_and_double_nothing(seed):
    size, rng = (26, 24, 40), np.random.default_rng(seed)
    labels = np.zeros(size, np.uint64)
    for number, (z, x) in enumerate(itertools.product((0, 13), (0, 13, 26)), 1):  # cubes apart from each other
        begin = (z + rng.integers(0, 7), rng.integers(0, 19), x + rng.integers(0, 7))
        labels[tuple(slice(b, b + LONGEST) for b in begin)] = number
    grid = t.tiles(size, (16, 16, 18), (10, 10, 10))
    found = t.merged(grid, seen(labels, grid, size, rng, margin=1), 0.3)
    painted = t.painted(Box((0, 0, 0), size), enumerate(found, 1))
    assert len(found) == 6
    owners = [np.bincount(painted[labels == number].astype(int), minlength=7)[1:].argmax() for number in range(1, 7)]
    assert sorted(owners) == list(range(6))


def test_the_order_of_tiles_and_pairs_changes_nothing():
    size = (20, 30, 40)
    labels = ellipsoids(size, 1, 60)
    grid = t.tiles(size, (12, 12, 14), (6, 6, 6))
    found = seen(labels, grid, size)
    pairs = [p for i in range(len(grid)) for j in range(i) for p in t.duplicates(found[i], found[j])]
    every = [one for own in found for one in own]
    wanted = [one.key for one in t.merged(grid, found)]
    assert len(pairs) > 10
    for seed in range(5):
        random.Random(seed).shuffle(pairs)
        random.Random(seed).shuffle(every)
        assert [one.key for one in t.kept(every, [p[:: random.choice((1, -1))] for p in pairs])] == wanted


def test_blocks_painted_apart_are_the_volume():
    size = (20, 30, 40)
    labels = ellipsoids(size, 2, 60)
    grid = t.tiles(size, (12, 12, 14), (6, 6, 6))
    found = list(enumerate(t.merged(grid, seen(labels, grid, size)), 1))
    whole = t.painted(Box((0, 0, 0), size), found)
    for begin in ((0, 0, 0), (7, 11, 13)):
        block = Box(begin, size)
        assert np.array_equal(t.painted(block, reversed(found)), whole[block.slices()])


def one(key, begin, mask, **more):
    values = {"score": 0.5, "label": 1, "owned": True, "cut": False, **more}
    mask = np.asarray(mask, bool)
    return t.Found(key, Box.of_size(begin, mask.shape), mask, **values)


def test_boxes_that_overlap_are_two_objects_if_their_masks_do_not():
    lower = np.tril(np.ones((8, 8), bool))[None]
    upper = np.triu(np.ones((8, 8), bool), 1)[None]
    first, second = one((0, 0), (0, 0, 0), lower), one((1, 0), (0, 0, 0), upper)
    assert t.duplicates([first], [second]) == []
    assert t.duplicates([first], [one((1, 0), (0, 0, 0), lower, label=2)]) == [((0, 0), (1, 0))]
    assert t.duplicates([], [second]) == t.duplicates([first], [one((1, 0), (5, 0, 0), lower)]) == []


def test_a_cut_part_of_an_object_gives_way_to_the_whole_of_it():
    whole = one((1, 0), (0, 0, 0), np.ones((1, 4, 10)), score=0.1, owned=False)
    part = one((0, 0), (0, 0, 7), np.ones((1, 4, 3)), score=0.9, cut=True)
    assert t.duplicates([part], [whole]) == [((0, 0), (1, 0))]
    assert t.kept([part, whole], [((0, 0), (1, 0))]) == [whole]


def test_of_two_detections_of_one_object_in_a_tile_the_better_one_stays():
    """A part of an object, whose box overlaps little with that of the whole, would be left over beside it."""
    tile = t.Tile(Box((0, 0, 0), (4, 9, 40)), Box((0, 0, 0), (4, 9, 20)))
    whole = one((0, 0), (0, 0, 15), np.ones((4, 8, 14)), score=0.9, owned=False)
    part = one((0, 1), (0, 5, 15), np.ones((4, 4, 4)), score=0.8)
    beside = one((0, 2), (0, 0, 11), np.ones((4, 8, 4)), score=0.3)
    assert t.reported([whole, part, beside], tile, margin=9) == [whole, beside]
    assert t.reported([whole, part, beside], tile, margin=0) == [beside], "also if another tile reports the whole"


def test_the_twin_of_a_twin_stays_if_that_one_goes():
    chain = [one((i, 0), (0, 0, 0), np.ones((1, 1, 1)), score=1 - i / 10) for i in range(3)]
    assert t.kept(chain, [((0, 0), (1, 0)), ((1, 0), (2, 0))]) == [chain[0], chain[2]]


def test_a_tile_hands_on_what_is_centred_near_its_core():
    tile = t.Tile(Box((0, 0, 10), (4, 4, 30)), Box((0, 0, 14), (4, 4, 26)))
    boxes = torch.tensor(
        [[0.0, 0, 0, 4, 2, 4], [0, 2, 1, 4, 4, 5], [0, 0, 14, 4, 4, 18], [0, 0, 9, 4, 4, 13], [0, 0, 2, 4, 4, 2.2]]
    )
    detections = {"boxes": boxes, "scores": torch.linspace(0.9, 0.5, 5), "labels": torch.arange(1, 6)}
    detections["mask_probs"] = torch.ones(5, 4, 4, 4)
    found = t.handed_on(3, tile, (4, 4, 40), detections, margin=1)
    assert [one.key for one in found] == [(3, 1), (3, 2), (3, 3)]
    assert [one.owned for one in found] == [False, False, True]
    assert found[0].box == Box((0, 2, 11), (4, 4, 15))
    assert found[0].label == 2
    assert not any(one.cut for one in found)
    [cut] = [one for one in t.handed_on(3, tile, (4, 4, 40), detections, margin=2) if one.cut]
    assert cut.key == (3, 0)
    assert t.handed_on(0, tile, (4, 4, 40), {**detections, "mask_probs": torch.zeros(5, 4, 4, 4)}) == []


def test_an_overlap_as_long_as_the_tile_is_refused():
    with pytest.raises(InputError, match="overlap: got"):
        t.tiles((9, 9, 9), (4, 4, 4), (0, 4, 0))
