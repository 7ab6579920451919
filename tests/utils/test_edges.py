"""The two views of an edge: voxel v and its partner v - edge, told by volumes that hold their own coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepem.utils.edges import edge_slices, edge_views, parse_edge

SHAPE = (3, 4, 5)
COORDINATES = np.indices(SHAPE)  # (3, Z, Y, X)
EDGE = st.tuples(*[st.integers(-6, 6)] * 3)


@given(EDGE)
def test_every_voxel_meets_its_partner(edge):
    first, second = edge_views(COORDINATES, edge)
    assert first.shape == second.shape
    pairs = {tuple(pair) for pair in np.concatenate([first, second]).reshape(6, first[0].size).T.tolist()}
    expected = set()
    for v in np.ndindex(SHAPE):
        u = np.subtract(v, edge)
        if (u >= 0).all() and (u < SHAPE).all():
            expected.add((*v, *u.tolist()))
    assert pairs == expected


@given(EDGE)
def test_the_opposite_edge_swaps_the_views(edge):
    first, second = edge_views(COORDINATES, edge)
    back_first, back_second = edge_views(COORDINATES, tuple(-d for d in edge))
    assert np.array_equal(first, back_second)
    assert np.array_equal(second, back_first)


def test_the_drawing_in_the_docstring():
    line = np.arange(5).reshape(1, 1, 5)
    first, second = edge_views(line, (0, 0, 2))
    assert (first.ravel().tolist(), second.ravel().tolist()) == ([2, 3, 4], [0, 1, 2])
    first, second = edge_views(line, (0, 0, -2))
    assert (first.ravel().tolist(), second.ravel().tolist()) == ([0, 1, 2], [2, 3, 4])


def test_they_are_views_of_arrays_and_tensors():
    array, tensor = np.zeros((2, *SHAPE)), torch.zeros(1, 2, *SHAPE)
    for whole in (array, tensor):
        first, _ = edge_views(whole, (1, 0, -1))
        first[...] = 1
        assert whole[..., 1:, :, :-1].min() == 1
        assert whole.sum() == 2 * 2 * 4 * 4


def test_slices_index_the_prediction_of_an_edge():
    first, second = edge_slices((1, 0, -2))
    assert np.array_equal(COORDINATES[(..., *first)], COORDINATES[:, 1:, :, :-2])
    assert np.array_equal(COORDINATES[(..., *second)], COORDINATES[:, :-1, :, 2:])


def test_edges_of_the_command_line():
    assert parse_edge("0,0,1") == (0, 0, 1)
    assert parse_edge("-1,2,-3") == (-1, 2, -3)
    for text in ("0,0,0", "1,2", "1,2,3,4", "a,b,c", ""):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_edge(text)
