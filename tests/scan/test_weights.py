"""Blend weights: their sum, and a slow reference that builds every patch's bump in the volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.scan.grid import Grid
from deepem.scan.weights import BUMPS, Blend, Weights, choose_profile
from deepem.utils.errors import InputError
from tests.scan.grids_drawn import grids


def bump(size, profile, edge=(0, 0, 0)):
    """One patch's weight before normalisation, by its formula."""
    t = [(np.arange(n) + 1) / (n + 1) for n in size]
    z, y, x = np.meshgrid(*t, indexing="ij")
    if profile == "zung":
        log = -sum((v * (1 - v)) ** -1.5 for v in (z, y, x))
        value = np.exp(log - log.max())
    elif profile.startswith("wu"):
        value = np.prod([np.exp(-1 / (1 - (2 * v - 1) ** 2)) for v in (z, y, x)], 0)
    else:
        value = np.ones(size)
    if profile == "wu_no_crust":
        inner = np.zeros(size)
        inner[1:-1, 1:-1, 1:-1] = 1
        value = value * inner
    for axis, d in enumerate(edge):
        planes = slice(None, d) if d > 0 else slice(d, None)
        if d:
            np.moveaxis(value, axis, 0)[planes] = 0
    return value


def patches(grid):
    return list(np.ndindex(*(len(r) for r in grid.touching(grid.covered))))


def total(grid, weights):
    volume = np.zeros(grid.size)
    for index in patches(grid):
        volume[grid.output_box(index).slices()] += weights(index).astype(np.float64)
    return volume[grid.covered.slices()]


@settings(max_examples=40, deadline=None)
@given(
    grids(),
    st.sampled_from([*BUMPS, "mean", "last"]),
    st.none() | st.tuples(*[st.integers(-3, 3)] * 3),
)
def test_the_weights_at_a_voxel_sum_to_one_on_any_grid_under_any_mask(grid, profile, edge):
    weights = Weights(grid, Blend(profile, None if edge is None else (edge,)))
    np.testing.assert_allclose(total(grid, lambda index: weights.of(index)[0].numpy()), 1, atol=3e-7)


@pytest.mark.parametrize("profile", [*BUMPS, "mean"])
@pytest.mark.parametrize("edge", [(0, 0, 0), (1, 2, -3), (0, 0, -2)])
def test_weights_are_the_formula_over_its_sum(profile, edge):
    grid = Grid((9, 17, 19), (5, 8, 9), (5, 8, 9), (3, 4, 5))
    masked, plain = bump(grid.output, profile, edge), bump(grid.output, "wu" if "wu" in profile else profile)
    weights = Weights(grid, Blend(profile, (edge,)))
    sums = {}
    for name, value in (("masked", masked), ("plain", plain)):
        volume = sums[name] = np.zeros(grid.size)
        for index in patches(grid):
            volume[grid.output_box(index).slices()] += value
    for index in patches(grid):
        box = grid.output_box(index).slices()
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(sums["masked"][box] > 0, masked / sums["masked"][box], plain / sums["plain"][box])
        np.testing.assert_allclose(weights.of(index)[0], wanted, atol=1e-6)


def test_a_mask_takes_the_planes_without_partner_where_another_patch_knows_better():
    grid = Grid((4, 8, 20), (4, 8, 8), (4, 8, 8), (4, 8, 6))
    weights = Weights(grid, Blend("zung", ((0, 0, 1), (0, 1, 0))))
    first, second = weights.of((0, 0, 0)).clone(), weights.of((0, 0, 1)).clone()
    assert (second[0, :, :, 0] == 0).all()  # x = 6: the patch before knows its partner
    assert (first[0, :, :, 6] == 1).all()
    assert (first[0, :, :, 0] == 1).all()  # x = 0: no patch knows it, so the unmasked weights hold
    assert (second[1, :, :, 0] > 0).all()  # the other channel's edge points along y


def test_last_gives_a_voxel_to_the_last_patch_alone():
    grid = Grid((4, 4, 10), (4, 4, 4), (4, 4, 4), (4, 4, 4))
    weights = Weights(grid, Blend("last"))
    assert [weights.of((0, 0, i))[0, 0, 0].tolist() for i in range(3)] == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("blend", "overlap", "profile"),
    [("bump", 4, "wu"), ("precomputed", 4, "wu"), ("mean", 4, "mean"), ("", 4, "mean"), ("none", 0, "last")],
)
def test_names_of_the_command_line(blend, overlap, profile):
    grid = Grid((8, 8, 8), (8, 8, 8), (8, 8, 8), (8 - overlap,) * 3)
    assert choose_profile(blend, "wu", grid) == profile


@pytest.mark.parametrize(("blend", "bump"), [("gauss", "zung"), ("bump", "gauss")])
def test_an_unknown_name_is_refused(blend, bump):
    with pytest.raises(InputError, match="gauss"):
        choose_profile(blend, bump, Grid((8, 8, 8), (8, 8, 8), (8, 8, 8), (8, 8, 8)))
