"""Centre crops share their centre voxel with the array, whatever the parity of the sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepem.utils.crop import centre_crop, centre_slices

PAIR = st.integers(1, 9).flatmap(lambda outer: st.tuples(st.just(outer), st.integers(1, outer)))


@given(st.tuples(PAIR, PAIR, PAIR))
def test_the_centre_voxel_stays_the_centre_voxel(pairs):
    size, inner = zip(*pairs, strict=True)
    where = np.indices(size)
    cropped = centre_crop(where, inner)
    assert cropped.shape == (3, *inner)
    centre = cropped[:, inner[0] // 2, inner[1] // 2, inner[2] // 2]
    assert centre.tolist() == [s // 2 for s in size]


@given(st.tuples(PAIR, PAIR, PAIR), st.data())
def test_a_crop_of_a_crop_is_the_crop(pairs, data):
    size, inner = zip(*pairs, strict=True)
    between = [data.draw(st.integers(i, s)) for s, i in pairs]
    where = np.indices(size)
    assert np.array_equal(centre_crop(centre_crop(where, between), inner), centre_crop(where, inner))


def test_tensors_and_leading_axes():
    tensor = torch.arange(2 * 4 * 5 * 6).reshape(1, 2, 4, 5, 6)
    assert torch.equal(centre_crop(tensor, (2, 2, 3)), tensor[..., 1:3, 1:3, 2:5])


def test_more_than_there_is_cannot_be_cropped():
    with pytest.raises(ValueError, match="cannot crop"):
        centre_slices((4, 4, 4), (4, 5, 4))
