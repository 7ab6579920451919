"""The patch grid: by hand, against the public one, and by properties."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepem.scan.grid import Axis, Grid, resolve_stride, runs
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles


@st.composite
def axes(draw):
    patch = draw(st.integers(1, 12))
    output = draw(st.integers(1, patch))
    front = draw(st.integers(0, patch - output))
    return Axis(patch + draw(st.integers(0, 40)), patch, output, draw(st.integers(1, output)), front)


def test_the_drawing_of_the_docstring():
    axis = Axis(13, 6, 4, 3, 1)
    assert [axis.start(i) for i in range(axis.count)] == [1, 4, 7, 8]
    assert axis.end == 12
    assert axis.touching(5, 7) == range(1, 2)
    assert axis.touching(5, 8) == range(1, 3)
    assert axis.neighbours(2) == (-3, 0, 1)


@given(axes(), st.data())
def test_touching_is_what_a_search_finds(axis, data):
    begin = data.draw(st.integers(axis.front, axis.end - 1))
    end = data.draw(st.integers(begin + 1, axis.end))
    found = [i for i in range(axis.count) if axis.start(i) < end and axis.start(i) + axis.output > begin]
    assert list(axis.touching(begin, end)) == found


@given(axes())
def test_every_covered_voxel_lies_in_a_patch_and_the_last_patch_is_flush(axis):
    covered = {v for i in range(axis.count) for v in range(axis.start(i), axis.start(i) + axis.output)}
    assert covered == set(range(axis.front, axis.end))
    starts = [axis.start(i) for i in range(axis.count)]
    assert starts == sorted(set(starts))
    assert starts[-1] - axis.front + axis.patch == axis.size


def test_patches_are_visited_as_recorded(shared):
    for case in json.loads((shared / "parity/inference.json").read_text())["scan"].values():
        p = case["params"]
        output = p.get("outputsz", p["fov"])
        grid = Grid(p["volshape"], p["fov"], output, resolve_stride(output, p["overlap"]))
        assert list(grid.stride) == case["stride"]
        z, y, x = grid.touching(grid.covered)
        boxes = [grid.input_box(tuple(range(i, i + 1) for i in index)) for index in np.ndindex(len(z), len(y), len(x))]
        assert [[b + n // 2 for b, n in zip(box.begin, p["fov"], strict=True)] for box in boxes] == case["locs"]


def test_overlaps_are_as_recorded(shared):
    for case in json.loads((shared / "parity/inference.json").read_text())["get_overlap"]:
        stride = resolve_stride(case["fov"], case["overlap"])
        assert [n - s for n, s in zip(case["fov"], stride, strict=True)] == case["result"]


def test_stride_as_fraction_is_rounded_up_and_wins():
    assert resolve_stride((7, 15, 17), (0, 0, 0), (0.5, 0.3, 4)) == (4, 5, 4)


@pytest.mark.parametrize(("overlap", "stride"), [((8, 0, 0), None), ((-1, 0, 0), None), ((0, 0, 0), (9, 1, 1))])
def test_patches_that_leave_gaps_or_do_not_move_are_refused(overlap, stride):
    with pytest.raises(InputError):
        resolve_stride((8, 8, 8), overlap, stride)


@pytest.mark.parametrize("values", [(float("nan"), 0, 0), (0, float("inf"), 0), (0, 0, -0.5), (1, 1), 0.5])
def test_what_is_no_overlap_or_stride_is_refused(values):
    for flag, words in (("overlap", {"overlap": values}), ("stride", {"stride": values})):
        with pytest.raises(InputError, match=f"{flag}: got .*, wants three numbers z,y,x of 0 or more"):
            resolve_stride((8, 8, 8), **words)


def test_a_volume_smaller_than_a_patch_is_refused():
    with pytest.raises(InputError, match="at least one patch"):
        Grid((8, 31, 40), (8, 32, 32), (8, 32, 32), (4, 16, 16))


def test_an_odd_difference_has_its_smaller_half_in_front_unless_told():
    assert Grid((12, 26, 25), (8, 16, 16), (4, 10, 11), (2, 5, 6)).covered == Box((2, 3, 2), (10, 23, 22))
    assert Grid((12, 26, 25), (8, 16, 16), (4, 10, 11), (2, 5, 6), (2, 3, 3)).covered == Box((2, 3, 3), (10, 23, 23))


@given(st.integers(1, 30), st.integers(1, 30))
def test_runs_partition_the_layers(count, depth):
    layers = range(5, 5 + count)
    assert [i for run in runs(layers, depth) for i in run] == list(layers)
    assert all(len(run) <= depth for run in runs(layers, depth))


def test_tiles_partition_the_whole_z_slowest():
    whole = Box((1, 2, 3), (12, 50, 40))
    boxes = Tiles(whole, (4, 16, 8))
    count = np.zeros(whole.end, int)
    for box in boxes:
        count[box.slices()] += 1
    assert (count[whole.slices()] == 1).all()
    assert count.sum() == whole.voxels
    assert len(boxes) == 3 * 3 * 5
    begins = [box.begin for box in boxes]
    assert begins == sorted(begins)
    with pytest.raises(IndexError):
        boxes[len(boxes)]
