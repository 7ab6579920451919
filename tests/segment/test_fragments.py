"""Watershed fragments against the rule said voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.volumes import XYZ, random_affinities, same_partition

from deepem.segment.channels import Channels, nearest
from deepem.segment.fragments import HIGH, LOW, fragments, steepest
from deepem.segment.runs import measured

STEPS = [(a, s) for a in range(3) for s in (-1, 1)]
"""In this order the first of equal edges is the steepest: to z - 1, z + 1, y - 1, ..."""


def neighbours(values, v):
    """(affinity, other voxel) of the edges of a voxel, `values` (3, Z, Y, X) in array order of the axes."""
    for axis, step in STEPS:
        u = tuple(p + step * (i == axis) for i, p in enumerate(v))
        if all(0 <= p < n for p, n in zip(u, values.shape[1:], strict=True)):
            yield int(values[(axis, *max(u, v))]), u


def slowly(values):
    """Labels of the fragments, and the voxels that belong to one."""
    shape = values.shape[1:]
    group = {v: v for v in np.ndindex(shape)}

    def root(v):
        while group[v] != v:
            v = group[v]
        return v

    inside = np.zeros(shape, bool)
    for v in np.ndindex(shape):
        edges = list(neighbours(values, v))
        best = max(edges, key=lambda edge: edge[0])  # the first of equals
        inside[v] = best[0] > LOW
        for affinity, u in edges:
            if affinity >= HIGH or (best[0] > LOW and (affinity, u) == best):
                group[root(u)] = root(v)
    labels = np.zeros(shape, np.int64)
    for v in np.ndindex(shape):
        labels[v] = 1 + np.ravel_multi_index(root(v), shape) if inside[v] else 0
    return labels, inside


@given(seed=st.integers(0, 999), levels=st.sampled_from([1, 2, 5, None]), background=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_voxel_goes_along_its_steepest_edge(seed, levels, background):
    values = (random_affinities((4, 5, 6), seed=seed, levels=levels) * 65535).astype(np.uint16)
    if background:
        values[np.random.default_rng(seed).random(values.shape) < 0.6] = LOW
    found, count = fragments(steepest(nearest(values, Channels.of(XYZ[::-1]), None)))
    wants, inside = slowly(values)
    assert same_partition(found, wants)
    np.testing.assert_array_equal(found == 0, ~inside)
    sizes, firsts = measured(found, count)
    np.testing.assert_array_equal(sizes, np.bincount(found.ravel(), minlength=count + 1)[1:])
    np.testing.assert_array_equal(found.ravel()[firsts], np.arange(1, count + 1))


@given(seed=st.integers(0, 999), levels=st.sampled_from([2, 5, None]), chunk=st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_voxels_at_a_time_do_not_matter(seed, levels, chunk):
    values = (random_affinities((5, 6, 7), seed=seed, levels=levels) * 65535).astype(np.uint16)
    near = nearest(values, Channels.of(XYZ[::-1]), None)
    whole = steepest(near)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepem.segment.fragments._CHUNK", chunk)
        patch.setattr("deepem.segment.fragments._DOUBLINGS", 1)
        np.testing.assert_array_equal(steepest(near), whole)
        found, _ = fragments(whole)
    np.testing.assert_array_equal(found, fragments(whole)[0])


def test_a_plateau_is_one_fragment_however_it_winds():
    """A comb: chains end in every tooth, and only edges of the plateau join them."""
    inside = np.zeros((4, 9, 40), bool)
    inside[:, :, ::2] = True
    inside[0, 8] = True
    values = np.stack([(inside & np.roll(inside, 1, axis)) * np.uint16(65535) for axis in range(3)])
    for axis in range(3):
        values[(axis, *(0 if i == axis else slice(None) for i in range(3)))] = 0
    found, count = fragments(steepest(nearest(values, Channels.of(XYZ[::-1]), None)))
    assert count == 1
    np.testing.assert_array_equal(found > 0, inside)


@pytest.mark.parametrize(("value", "joined"), [(LOW, False), (LOW + 1, True)])
def test_low_affinities_are_background(value, joined):
    values = np.full((3, 1, 1, 2), value, np.uint16)
    found, _ = fragments(steepest(nearest(values, Channels.of(XYZ[::-1]), None)))
    assert ((found > 0) == joined).all()
