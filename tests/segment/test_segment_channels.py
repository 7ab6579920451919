"""Probabilities as uint16, and channels in any order and direction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.volumes import LONG, XYZ, cells, noisy, random_affinities

from deepem.segment import segment
from deepem.segment.channels import FULL, Channels, level, quantise
from deepem.utils.edges import edge_views
from deepem.utils.errors import InputError


def turned(values, edges, channel):
    """The same affinities with one channel stored at the other voxel of its pairs."""
    back = tuple(-d for d in edges[channel])
    values, edges = values.copy(), list(edges)
    moved = np.zeros_like(values[channel])
    edge_views(moved, back)[0][...] = edge_views(values[channel], edges[channel])[0]
    values[channel], edges[channel] = moved, back
    return values, edges


@given(order=st.permutations(range(len(LONG))), back=st.sets(st.integers(0, len(LONG) - 1)), block=st.booleans())
@settings(max_examples=12, deadline=None)
def test_order_and_direction_of_the_channels_do_not_matter(order, back, block):
    values, edges = random_affinities((7, 9, 10), len(LONG)), list(LONG)
    for channel in back:
        values, edges = turned(values, edges, channel)
    values, edges = values[list(order)], [edges[i] for i in order]
    for decoder in ("agglomerate", "mutex", "components"):
        wants = segment(random_affinities((7, 9, 10), len(LONG)), edges=LONG, decoder=decoder, threshold=0.55)
        found = segment(values, edges=edges, decoder=decoder, threshold=0.55, block_size=(3, 4, 5) if block else None)
        np.testing.assert_array_equal(found, wants)


def test_what_is_stored_where_a_pair_leaves_the_volume_does_not_count():
    values = noisy(cells((6, 12, 12)))
    wants = segment(values)
    values[0, :, :, 0] = values[1, :, 0] = values[2, 0] = 1
    np.testing.assert_array_equal(segment(values), wants)


def test_the_type_does_not_matter_beyond_its_digits():
    values = quantise(noisy(cells((6, 12, 12))))
    floats = values / np.float64(FULL)
    for same in (floats, floats.astype(np.float32)):
        np.testing.assert_array_equal(quantise(same), values)
        np.testing.assert_array_equal(segment(same), segment(values))


def test_256_levels_are_taken_with_a_warning(capsys):
    values = (noisy(cells((6, 12, 12))) * 255).astype(np.uint8)
    np.testing.assert_array_equal(segment(values), segment(values / np.float32(255)))
    assert capsys.readouterr().err.count("warning: probabilities: 256 levels") == 1
    assert (quantise(np.array([0, 1, 255], np.uint8)) == [0, 257, FULL]).all()


@given(st.floats(0, 1, width=32))
def test_an_affinity_that_equals_the_threshold_is_not_above_it(value):
    assert quantise(np.array([value], np.float32))[0] == level(value)


def test_a_little_beyond_1_is_rounding():
    assert quantise(np.array([-1e-6, 1 + 1e-6], np.float32)).tolist() == [0, FULL]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((3, 2, 2, 2), np.nan, np.float32), "probabilities: got values from nan to nan, wants numbers in"),
        (np.full((3, 2, 2, 2), 255.0, np.float32), "probabilities: got values from 255 to 255, wants numbers in"),
        (np.zeros((3, 2, 2, 2), np.int32), "probabilities: got int32, wants float in"),
        (np.zeros((2, 2, 2), np.float32), r"probabilities: got an array \(2, 2, 2\), wants \(C, Z, Y, X\)"),
        (np.zeros((3, 0, 2, 2), np.float32), r"probabilities: got an array \(3, 0, 2, 2\), wants"),
        (np.zeros((4, 2, 2, 2), np.float32), "probabilities: got 4 channels, wants 3, one per edge of"),
    ],
)
def test_bad_probabilities_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        segment(values)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (((0, 0, 1), (0, 1, 0)), r"the nearest edge along every axis: no \(1, 0, 0\)"),
        (((0, 0, 1), (0, 0, -1), (1, 0, 0)), r"got two channels for \(0, 0, 1\), wants one channel"),
        (((0, 0, 0), (0, 1, 0), (1, 0, 0)), r"got \(0, 0, 0\), wants the distance of two voxels"),
    ],
)
def test_bad_edges_are_refused(edges, message):
    with pytest.raises(InputError, match=message):
        Channels.of(edges)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": "zwatershed"}, "decoder: got zwatershed, wants one of agglomerate, mutex"),
        ({"decoder": "objects"}, "probabilities: got 3 channels, wants 1 for the decoder objects"),
        ({"decoder": "mutex"}, r"wants a long-range edge, along which the decoder mutex keeps apart"),
        ({"threshold": 128}, r"threshold: got 128, wants an affinity in \[0, 1\]"),
        ({"threshold": float("nan")}, "threshold: got nan, wants"),
        ({"block_size": (0, 4, 4)}, r"block size: got \(0, 4, 4\), wants 1 voxel"),
        ({"min_size": -1}, "min_size: got -1, wants 0 or more"),
        ({"mask": np.ones((2, 2))}, r"mask: got an array \(2, 2\), wants \(2, 2, 2\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        segment(np.zeros((3, 2, 2, 2), np.float32), edges=XYZ, **arguments)
