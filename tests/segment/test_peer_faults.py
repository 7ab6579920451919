"""Faults that other programs for the segmentation of affinities had, each with a small volume."""

from __future__ import annotations

import numpy as np
import pytest
from segment.phases import Phases
from segment.volumes import XYZ, oracle

from deepem.segment import segment
from deepem.segment.graph import Table
from deepem.segment.join import Regions
from deepem.segment.plan import Plan
from deepem.segment.select import segment_ids
from deepem.utils.geometry import Box

JOINED_DECODERS = ("agglomerate", "components")


def sizes(found):
    return sorted(np.unique(found[found > 0], return_counts=True)[1].tolist())


def row(*affinities):
    """Affinities of voxels in a row along x, of each to the one before it: (3, 1, 1, X)."""
    found = np.zeros((3, 1, 1, len(affinities)), np.float32)
    found[0, 0, 0] = affinities
    return found


@pytest.mark.parametrize("decoder", JOINED_DECODERS)
@pytest.mark.parametrize("block", [None, (4, 4, 4), (1, 2, 3)])
def test_affinities_are_read_at_the_voxel_and_in_the_order_they_are_stored(decoder, block):
    labels = np.ones((2, 3, 8), np.int32)
    labels[..., 4:] = 2
    assert sizes(segment(oracle(labels), decoder=decoder, block_size=block)) == [24, 24]
    backward = [tuple(-d for d in edge) for edge in XYZ]
    assert sizes(segment(oracle(labels), edges=backward, decoder=decoder, block_size=block)) != [24, 24]
    assert sizes(segment(oracle(labels), edges=XYZ[::-1], decoder=decoder, block_size=block)) != [24, 24]


@pytest.mark.parametrize("decoder", JOINED_DECODERS)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8])
def test_a_weak_affinity_over_a_block_face_does_not_join(decoder, width):
    values = row(0, 1, 1, 1, 0.1, 1, 1, 1)
    np.testing.assert_array_equal(segment(values, decoder=decoder, block_size=(1, 1, width))[0, 0], [1] * 4 + [5] * 4)


@pytest.mark.parametrize("decoder", JOINED_DECODERS)
@pytest.mark.parametrize("width", [2, 3, 12])
def test_a_fragment_without_an_edge_keeps_its_id(decoder, width):
    values = row(0, 1, 0.8, 1, 0, 0, 0, 1, 1, 0, 0, 0)
    found = segment(values, decoder=decoder, block_size=(1, 1, width))[0, 0]
    np.testing.assert_array_equal(found, [1, 1, 1, 1, 0, 0, 7, 7, 7, 0, 0, 0])


def test_an_island_of_the_mask_without_a_seed_is_a_segment():
    mask = np.zeros((1, 12, 16), bool)
    mask[0, 1:10, 1:10] = True
    mask[0, 8:10, 12:14] = True
    boundary = np.ones((1, 1, 12, 16), np.float32)
    boundary[0, 0, 4:7, 4:7] = 0
    found = segment(boundary, decoder="watershed", mask=mask)
    assert sizes(found) == [4, 81]
    np.testing.assert_array_equal(found > 0, mask)


def test_a_low_long_range_affinity_repels():
    values = np.zeros((4, 1, 1, 4), np.float32)
    values[0, 0, 0] = 0, 0.9, 0.6, 0.8
    values[3, 0, 0, 3] = 0.3
    edges = (*XYZ, (0, 0, 3))
    for width in (1, 2, 3, 4):
        found = segment(values, edges=edges, decoder="mutex", block_size=(1, 1, width))
        np.testing.assert_array_equal(found[0, 0], [1, 1, 3, 3])
    values[3, 0, 0, 3] = 0.7
    np.testing.assert_array_equal(segment(values, edges=edges, decoder="mutex")[0, 0], [1, 1, 1, 1])


@pytest.mark.parametrize("block", [(1, 1, 1), (1, 2, 2), (1, 2, 3), (1, 3, 1), (1, 4, 4)])
@pytest.mark.parametrize(("corners", "count"), [(True, 1), (False, 2)])
def test_objects_meet_over_edges_and_corners_of_blocks(tmp_path, block, corners, count):
    values = np.zeros((1, 1, 4, 4), np.float32)
    values[0, 0, [1, 2], [1, 2]] = 1
    plan = Plan(Box((0, 0, 0), (1, 4, 4)), block, "objects", corners=corners)
    found = Phases(tmp_path, plan, values).run()
    assert len(sizes(found)) == count
    mirrored = Phases(tmp_path, plan, values[..., ::-1]).run()
    assert len(sizes(mirrored)) == count


@pytest.mark.parametrize("seed", range(4))
def test_a_snake_through_many_blocks_is_one_object(tmp_path, seed):
    shape = np.zeros((1, 9, 12), np.float32)
    shape[0, ::2, :9] = 1
    shape[0, [1, 5], 8] = 1
    shape[0, [3, 7], 0] = 1
    shape[0, :, 11] = 1
    plan = Plan(Box((0, 0, 0), shape.shape), (1, 3, 3), "objects")
    order = np.random.default_rng(seed).permutation(len(plan.boxes))
    found = Phases(tmp_path, plan, shape[None]).run(order)
    assert sizes(found) == [9, 5 * 9 + 4]
    np.testing.assert_array_equal(found > 0, shape > 0)


def test_near_ids_beyond_the_digits_of_a_float_stay_apart():
    ids = np.array([2**53, 2**53 + 1], np.uint64)
    none = np.zeros((0, 6), np.int64)
    parts = np.array([0, 1, 1], np.int64)
    regions = Regions(ids, np.ones(2, np.int64), none, Table.empty(), Table.empty(), parts, np.array([0, 3]))
    plan = Plan(Box((0, 0, 0), (1, 1, 3)), (1, 1, 3), edges=XYZ)
    found = segment_ids(plan, regions, np.array([0, 1], np.int64))
    table = regions.of_block(0, found)
    assert table.dtype == np.uint64
    assert table.tolist() == [0, 2**53, 2**53 + 1, 2**53 + 1]
