"""The scan: an identity network gives its input back, and a part of a volume is the same bits as in the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.scan.grid import Grid
from deepem.scan.stitch import Scan
from deepem.scan.weights import BUMPS, Blend
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box
from tests.scan.grids_drawn import grids

PROFILES = st.sampled_from([*BUMPS, "mean", "last"])


def identity(grid):
    z, y, x = Box.of_size(grid.front, grid.output).slices()
    return lambda patches: {"image": patches[..., z, y, x]}


def gather(scan, image, box=None, depth=None):
    """The parts of a scan put together, NaN where none came."""
    found = {}
    for part, values in scan.run(lambda b: image[(slice(None), *b.slices())], box, depth):
        for name, value in values.items():
            whole = found.setdefault(name, torch.full((value.shape[0], *scan.grid.size), torch.nan))
            assert whole[(slice(None), *part.slices())].isnan().all(), "voxels handed over twice"
            whole[(slice(None), *part.slices())] = value
    return {name: value[(slice(None), *(box or scan.grid.covered).slices())].numpy() for name, value in found.items()}


@settings(max_examples=60, deadline=None)
@given(grids(), PROFILES, st.integers(1, 3), st.integers(1, 4), st.none() | st.tuples(*[st.integers(-3, 3)] * 3))
def test_an_identity_network_gives_its_input_back(grid, profile, batch, depth, edge):
    image = torch.rand(2, *grid.size, generator=torch.Generator().manual_seed(0))
    blend = Blend(profile, None if edge is None else (edge, (0, 0, 1)))
    scan = Scan(grid, identity(grid), default=blend, batch_size=batch)
    wanted = image[(slice(None), *grid.covered.slices())].numpy()
    np.testing.assert_allclose(gather(scan, image, depth=depth)["image"], wanted, atol=1e-6)


@pytest.mark.parametrize("profile", [*BUMPS, "mean"])
def test_rounding_does_not_add_up_where_hundreds_of_patches_cover_a_voxel(profile):
    grid = Grid((6, 20, 21), (5, 9, 7), (5, 9, 7), (1, 1, 1))
    image = torch.rand(1, *grid.size, generator=torch.Generator().manual_seed(0))
    found = gather(Scan(grid, identity(grid), default=Blend(profile)), image, depth=2)["image"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, image, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_never_in_half_precision(dtype):
    grid = Grid((6, 8, 9), (4, 4, 4), (4, 4, 4), (2, 2, 2))
    image = torch.rand(1, *grid.size)
    found = gather(Scan(grid, identity(grid), dtype=dtype), image)["image"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, image, atol=1e-6)


@st.composite
def grids_and_boxes(draw):
    grid = draw(grids())
    begin = [draw(st.integers(b, e - 1)) for b, e in zip(*grid.covered, strict=True)]
    end = [draw(st.integers(b + 1, e)) for b, e in zip(begin, grid.covered.end, strict=True)]
    return grid, Box(tuple(begin), tuple(end))


@settings(max_examples=60, deadline=None)
@given(grids_and_boxes(), PROFILES, st.integers(1, 4))
def test_a_box_alone_is_the_same_bits_as_in_the_whole(case, profile, depth):
    grid, box = case
    image = torch.rand(1, *grid.size, generator=torch.Generator().manual_seed(0))
    net = identity(grid)
    scan = Scan(grid, lambda p: {"image": net(p)["image"] * p.mean((2, 3, 4), keepdim=True)}, default=Blend(profile))
    whole = gather(scan, image)["image"]
    inside = box.shift(-b for b in grid.covered.begin).slices()
    assert np.array_equal(gather(scan, image, box, depth)["image"], whole[(slice(None), *inside)])


def test_every_patch_reaches_the_network_once_at_its_place():
    grid = Grid((7, 11, 13), (4, 5, 6), (4, 5, 6), (2, 3, 4))
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid.size), indexing="ij")).float()
    seen = []

    def look(patches):
        assert all(torch.equal(p - p[:, :1, :1, :1], coordinates[:, :4, :5, :6]) for p in patches)
        seen.extend(tuple(p[:, 0, 0, 0].int().tolist()) for p in patches)
        return {"image": patches}

    gather(Scan(grid, look, batch_size=1), coordinates, depth=1)
    z, y, x = grid.touching(grid.covered)
    wanted = [grid.output_box((i, j, k)).begin for i in z for j in y for k in x]
    assert seen == wanted


def test_bytes_are_divided_by_255_once():
    grid = Grid((3, 4, 5), (3, 4, 4), (3, 4, 4), (3, 4, 2))
    image = torch.arange(60, dtype=torch.uint8).reshape(1, 3, 4, 5)
    np.testing.assert_allclose(gather(Scan(grid, identity(grid)), image)["image"], image.numpy() / 255, atol=1e-6)


def test_a_network_that_writes_into_its_input_spoils_nothing():
    grid = Grid((4, 6, 9), (4, 4, 4), (4, 4, 4), (2, 2, 2))
    image = torch.rand(1, *grid.size)
    before = image.clone()
    scan = Scan(grid, lambda p: {"image": p.mul_(0.5)}, batch_size=3)
    np.testing.assert_allclose(gather(scan, image, depth=1)["image"], before / 2, atol=1e-6)
    assert torch.equal(image, before)


def test_the_network_always_gets_a_whole_batch_and_leftovers_are_dropped():
    grid = Grid((2, 2, 8), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    sizes = []
    image = torch.rand(1, *grid.size)
    scan = Scan(grid, lambda p: sizes.append(len(p)) or {"image": p.clone()}, batch_size=3)
    np.testing.assert_allclose(gather(scan, image)["image"], image, atol=1e-6)
    assert sizes == [3, 3]


def test_background_is_skipped_and_counts_as_zero():
    grid = Grid((2, 4, 8), (2, 4, 4), (2, 4, 4), (2, 4, 4))
    image = torch.zeros(1, *grid.size)
    image[..., 5] = 1
    calls = []
    scan = Scan(grid, lambda p: calls.append(1) or {"a": torch.ones_like(p)}, channels={"a": 1}, skip_background=True)
    found = gather(scan, image)["a"]
    assert len(calls) == 1
    assert (found[..., :4] == 0).all()
    assert (found[..., 4:] == 1).all()
    empty = gather(scan, torch.zeros(1, *grid.size))["a"]
    assert (empty == 0).all()


def test_memory_does_not_grow_with_the_length_of_a_volume():
    """The sums that are alive at once reach over one run of layers, however long the volume is."""
    most = []
    for length in (20, 80):
        grid = Grid((length, 4, 4), (4, 4, 4), (4, 4, 4), (2, 2, 2))
        planes = [values["image"].untyped_storage().nbytes() for _, values in
                  Scan(grid, identity(grid)).run(lambda b: torch.zeros(1, *b.size), None, 2)]  # fmt: skip
        most.append(max(planes))
    assert most[0] == most[1]


def test_a_reader_that_gives_too_little_is_named():
    grid = Grid((4, 4, 4), (4, 4, 4), (4, 4, 4), (4, 4, 4))
    with pytest.raises(InputError, match="image"):
        list(Scan(grid, identity(grid)).run(lambda box: torch.zeros(1, 3, 4, 4)))


def test_an_error_of_the_reader_comes_through():
    grid = Grid((8, 4, 4), (4, 4, 4), (4, 4, 4), (4, 4, 4))

    def read(box):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(Scan(grid, identity(grid)).run(read, None, 1))
