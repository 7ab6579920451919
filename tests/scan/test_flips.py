"""The 16 flips: boxes go with the voxels, and affinities come back to the pair of voxels that they are of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepem.scan.flips import Flip
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

SIZE = (3, 5, 7)
FLIPS = [Flip.of(k) for k in range(16)]


def coordinates():
    return torch.stack(torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij"))


@pytest.mark.parametrize("number", range(16))
def test_bits_are_z_y_x_transpose_flips_first(number):
    array = np.arange(105).reshape(SIZE)
    wanted = array
    for axis, bit in enumerate(f"{number:04b}"[:3]):
        wanted = np.flip(wanted, axis) if bit == "1" else wanted
    wanted = wanted.swapaxes(1, 2) if number % 2 else wanted
    flip = Flip.of(number)
    np.testing.assert_array_equal(flip.apply(torch.from_numpy(array)), wanted)
    np.testing.assert_array_equal(flip.revert(torch.from_numpy(wanted.copy())), array)
    assert flip.size(SIZE) == wanted.shape


@given(st.sampled_from(FLIPS), st.data())
def test_a_box_goes_with_its_voxels(flip, data):
    begin = [data.draw(st.integers(0, n - 1)) for n in SIZE]
    box = Box(begin, [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, SIZE, strict=True)])
    moved = flip.box(box, SIZE)
    inside = flip.apply(coordinates())[(slice(None), *moved.slices())]
    assert torch.equal(flip.revert(inside), coordinates()[(slice(None), *box.slices())])
    assert flip.unbox(moved, SIZE) == box


def affinities(labels, edges):
    """NaN where a voxel has no partner."""
    found = np.full((len(edges), *labels.shape), np.nan)
    for channel, edge in zip(found, edges, strict=True):
        for v in np.ndindex(labels.shape):
            partner = tuple(a - d for a, d in zip(v, edge, strict=True))
            if all(0 <= a < n for a, n in zip(partner, labels.shape, strict=True)):
                channel[v] = labels[v] == labels[partner]
    return found


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize(
    "edges",
    [
        [(0, 0, 1), (0, 1, 0), (1, 0, 0)],
        [(0, 0, -3), (0, -3, 0), (-2, 0, 0), (0, 2, 1), (0, -1, 2), (0, 1, 2), (0, 2, -1)],
    ],
)
def test_affinities_of_the_flipped_volume_come_back_as_those_of_the_volume(flip, edges):
    labels = np.random.default_rng(0).integers(0, 3, SIZE)
    seen = affinities(flip.apply(torch.from_numpy(labels)).numpy().copy(), edges)
    back = flip.revert(torch.from_numpy(seen)).numpy()
    wanted = affinities(labels, edges)
    for channel, origin in enumerate(flip.origins(edges)):
        assert origin is not None
        source, shift = origin
        for v in np.ndindex(SIZE):
            at = tuple(a - d for a, d in zip(v, shift, strict=True))
            known = all(0 <= a < n for a, n in zip(at, SIZE, strict=True))
            assert not known or np.array_equal(back[source][at], wanted[channel][v], equal_nan=True)
            assert known or np.isnan(wanted[channel][v])


def test_an_edge_that_a_flip_turns_into_none_of_the_others_is_unknown():
    assert Flip.of(2).origins([(0, 1, 1), (0, 0, 1)]) == [None, (1, (0, 0, 1))]


@pytest.mark.parametrize("number", [-1, 16])
def test_there_are_sixteen(number):
    with pytest.raises(InputError, match="0 to 15"):
        Flip.of(number)
