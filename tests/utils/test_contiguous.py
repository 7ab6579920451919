"""Copies in memory order have the values of the view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deepem.utils.contiguous import contiguous

DTYPES = [bool, np.uint8, np.uint16, np.int32, np.float32, np.int64, np.float64]


@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=2, max_dims=4))
    ),
    mirrored=st.tuples(*[st.booleans()] * 4),
    axes=st.permutations(range(4)),
    step=st.sampled_from([1, 1, 2]),
)
def test_any_view_is_copied_as_numpy_does(array, mirrored, axes, step):  # type: ignore[no-untyped-def]
    view = array[..., ::step].transpose([axis for axis in axes if axis < array.ndim])
    view = view[tuple(slice(None, None, -1 if m else 1) for m in mirrored[: array.ndim])]
    made = contiguous(view)
    assert made.flags.c_contiguous
    assert made.dtype == view.dtype
    np.testing.assert_array_equal(made, view)
    for kind in (view.dtype, np.float64):
        out = np.empty(view.shape, kind)
        assert contiguous(view, out) is out
        np.testing.assert_array_equal(out, view)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_poses_of_a_patch(dtype: type):
    array = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7).astype(dtype)
    for pose in np.ndindex(2, 2, 2, 2):
        z, y, x = (slice(None, None, -1 if m else 1) for m in pose[:3])
        view = array[:, z, y, x]
        view = view.swapaxes(2, 3) if pose[3] else view
        np.testing.assert_array_equal(contiguous(view), view.copy())


def test_an_array_in_order_is_itself():
    array = np.zeros((2, 3, 4))
    assert contiguous(array) is array
