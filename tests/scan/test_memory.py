"""The cut of a volume that fits in memory."""

import mmap

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepem.scan.augment import Augmented
from deepem.scan.flips import Flip
from deepem.scan.grid import Grid
from deepem.scan.memory import Cost, cut, trial
from deepem.scan.stitch import Scan
from deepem.utils.geometry import Box, Tiles
from deepem.utils.main_memory import in_words
from tests.scan.grids_drawn import grids

COST = Cost(1, 16, 1000)


def scan_of(grid):
    return Scan(grid, lambda patches: {"a": patches})


def flips_of(grid, flips=(0, 14)):
    return Augmented(
        lambda size: scan_of(Grid(size, grid.patch, grid.output, grid.stride)), grid.size, [Flip.of(k) for k in flips]
    )


@settings(deadline=None)
@given(grids(), st.integers(2_000, 200_000), st.booleans(), st.tuples(*[st.integers(1, 5)] * 3))
def test_a_cut_partitions_the_box_at_whole_blocks_and_needs_no_more_than_it_may(grid, limit, flips, align):
    run = flips_of(grid) if flips else scan_of(grid)
    found = cut(run, grid, grid.covered, COST, limit, align)
    if found is None:
        return
    assert found.need <= limit
    assert found.depth >= 1
    count = np.zeros(grid.size, int)
    for box in found.boxes:
        count[box.slices()] += 1
        for axis in (1, 2):
            assert (box.begin[axis] - grid.covered.begin[axis]) % align[axis] == 0
    assert (count[grid.covered.slices()] == 1).all()
    assert count.sum() == grid.covered.voxels
    assert found.patches == sum(run.count(box) for box in found.boxes)
    assert found.patches >= run.count(grid.covered)


def grid_of(*size):
    return Grid(size, (4, 16, 16), (4, 16, 16), (2, 8, 8))


@pytest.mark.parametrize("flips", [False, True])
def test_the_need_does_not_depend_on_how_long_and_wide_a_volume_is(flips):
    needs = []
    for size in ((40, 200, 200), (640, 200, 200), (40, 200, 3200), (160, 800, 800)):
        grid = grid_of(*size)
        found = cut(flips_of(grid) if flips else scan_of(grid), grid, grid.covered, COST, 2 << 20)
        needs.append(found.need)
    assert max(needs) <= 2 << 20
    assert min(needs) > (2 << 20) * 0.6


def test_what_fits_is_left_in_one_piece():
    grid = grid_of(40, 200, 200)
    found = cut(scan_of(grid), grid, grid.covered, COST, 1 << 40)
    assert found.boxes == [grid.covered]
    assert found.patches == grid.count(grid.covered)


def test_nothing_fits_in_nothing():
    grid = grid_of(40, 200, 200)
    assert cut(scan_of(grid), grid, grid.covered, COST, 10_000) is None


def test_a_part_can_be_cut_too():
    grid, part = grid_of(40, 200, 200), Box((3, 20, 7), (33, 180, 190))
    found = cut(scan_of(grid), grid, part, COST, 1 << 20)
    assert sum(box.voxels for box in found.boxes) == part.voxels
    assert all(part.contains(box) for box in found.boxes)


def test_a_trial_sees_what_a_call_takes():
    def call() -> None:
        """Pages straight from the kernel: what malloc kept of other tests would not count."""
        with mmap.mmap(-1, 50 << 20) as pages:
            pages.write(bytes(1 << 20) * 50)

    taken = trial(call, torch.device("cpu"))
    assert taken == 0 or 45 << 20 < taken < 200 << 20


def test_sizes_in_words():
    assert in_words(5 << 20) == "5 MiB"
    assert in_words(3 << 29) == "1.5 GiB"


@settings(deadline=None)
@given(grids(), st.booleans(), st.tuples(*[st.integers(1, 9)] * 3))
def test_patches_of_tiles_are_counted_without_the_tiles(grid, flips, tile):
    assume(min(grid.size[1:]) >= max(grid.patch[1:]))  # transposed it holds a patch too
    run = flips_of(grid, (0, 3, 14)) if flips else grid
    found = sum(run.count(box) for box in Tiles(grid.covered, tile))
    assert run.count_tiled(grid.covered, tile) == found
