"""Objects and seeds: sizes, joining, splitting, holes, the watershed, and masks."""

from __future__ import annotations

import numpy as np
import pytest
from segment.phases import Phases
from segment.volumes import XYZ, random_affinities, same_partition

from deepem.segment import segment
from deepem.segment.graph import Table
from deepem.segment.plan import Plan
from deepem.segment.relabel import oversized
from deepem.segment.select import join_small
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box


def balls(shape, *centres, radius=4):
    """(Z, Y, X) float32: 1 within balls."""
    places = np.indices(shape).reshape(3, -1).T
    near = [np.square(places - centre).sum(axis=1) <= radius * radius for centre in centres]
    return np.any(near, axis=0).reshape(shape).astype(np.float32)


def objects(folder, values, block, mask=None, **given):
    folder.mkdir(exist_ok=True)
    return Phases(
        folder, Plan(Box((0, 0, 0), values.shape), block, **{"decoder": "objects", **given}), values[None], mask
    )


def test_small_objects_are_left_out():
    values = balls((9, 20, 20), (4, 5, 5), (4, 14, 14))
    values[0, 0, 19] = 1
    whole = segment(values[None], decoder="objects")
    assert len(np.unique(whole)) == 4
    found = segment(values[None], decoder="objects", min_size=2, block_size=(3, 6, 7))
    np.testing.assert_array_equal(found, np.where(whole == whole[0, 0, 19], 0, whole))


@pytest.mark.parametrize("block", [(9, 14, 40), (5, 7, 9), (2, 14, 3)])
def test_touching_balls_are_split_in_two_however_they_are_cut(tmp_path, block):
    values = balls((9, 14, 40), (4, 6, 5), (4, 6, 12), (4, 6, 30))
    whole = objects(tmp_path / "whole", values, values.shape, split=3, halo=(16, 16, 16)).run()
    assert len(np.unique(whole)) == 4
    assert whole[4, 6, 5] != whole[4, 6, 12]
    np.testing.assert_array_equal(whole > 0, values > 0)
    ids, first = np.unique(whole, return_index=True)
    np.testing.assert_array_equal(ids[1:], first[1:] + 1)
    run = objects(tmp_path / "cut", values, block, split=3, halo=(16, 16, 16))
    np.testing.assert_array_equal(run.run(), whole)
    assert not oversized(run.plan, run.regions).any()


def test_an_object_larger_than_the_halo_stays_whole_and_is_counted(tmp_path):
    values = balls((9, 14, 40), (4, 6, 5), (4, 6, 12), (4, 6, 30))
    for name, block in (("whole", values.shape), ("cut", (9, 14, 6))):
        run = objects(tmp_path / name, values, block, split=3, halo=(10, 10, 10))
        found = run.run()
        assert len(np.unique(found)) == 3
        assert oversized(run.plan, run.regions).sum() == 1


@pytest.mark.parametrize("block", [(9, 9, 24), (3, 9, 5)])
def test_holes_are_filled_and_openings_are_not(tmp_path, block):
    values = np.zeros((9, 9, 24), np.float32)
    values[1:8, 1:8, 1:8] = values[1:8, 1:8, 9:16] = values[1:8, 1:8, 17:23] = 1
    values[3:5, 4, 4] = 0  # a hole
    values[4, 4, 12] = values[4, 1:4, 12] = 0  # a hole with a way out
    values[2:7, 2:7, 18:22] = 0  # a hole that holds another object
    values[4, 4, 20] = 1
    found = objects(tmp_path, values, block, holes=True, halo=(6, 6, 6)).run()
    wants = segment(values[None], decoder="objects")
    wants[3:5, 4, 4] = wants[1, 1, 1]
    np.testing.assert_array_equal(found, wants)
    small = objects(tmp_path, values, block, holes=True, halo=(1, 1, 1)).run()
    assert not small[3:5, 4, 4].any()


def test_a_small_piece_goes_to_the_neighbour_of_highest_affinity():
    """0 (90 voxels) and 1 (80) are large; 2 and 3 are not, and 3 touches 2 only. 4 touches 0 without affinity."""
    pairs = np.array([[0, 1], [0, 2], [0, 4], [1, 2], [2, 3]])
    table = Table(pairs, np.array([60000, 5000, 0, 9000, 100]), np.array([1, 1, 1, 3, 1]))
    sizes = np.array([90, 80, 3, 2, 1])
    assert join_small(table, np.arange(5), sizes, 10).tolist() == [0, 1, 0, 0, 4]
    assert join_small(table, np.arange(5), sizes, 3).tolist() == [0, 1, 2, 2, 4]
    assert join_small(table, np.arange(5), sizes, 1).tolist() == [0, 1, 2, 3, 4]


def test_small_pieces_are_joined_before_small_segments_are_left_out(tmp_path):
    values = random_affinities((6, 10, 10), seed=3)
    found = []
    for name, block in (("whole", (6, 10, 10)), ("cut", (4, 3, 6))):
        (tmp_path / name).mkdir()
        run = Phases(tmp_path / name, Plan(Box((0, 0, 0), (6, 10, 10)), block, edges=XYZ, threshold=0.8), values)
        found.append(run.run(min_size=5, join_smaller=12).copy())
    np.testing.assert_array_equal(*found)
    assert np.unique(found[0], return_counts=True)[1].min() >= 12
    assert (found[0] > 0).all()


def test_pieces_are_joined_by_a_region_graph_only(tmp_path):
    with pytest.raises(InputError, match="join_smaller: got 3 for the decoder objects, wants agglomerate or mutex"):
        objects(tmp_path, np.ones((2, 2, 2), np.float32), (2, 2, 2)).run(join_smaller=3)


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components"])
@pytest.mark.parametrize("block", [None, (2, 3, 4)])
def test_nothing_is_joined_through_what_the_mask_leaves_out(decoder, block):
    mask = np.ones((4, 6, 9), np.uint8)
    mask[:, :, 4] = 0
    found = segment(
        np.ones((4, 4, 6, 9), np.float32), edges=(*XYZ, (0, 0, 2)), decoder=decoder, mask=mask, block_size=block
    )
    assert not found[mask == 0].any()
    assert same_partition(found, np.where(mask > 0, 1 + (np.arange(9) > 4), 0))


@pytest.mark.parametrize("block", [(5, 12, 30), (5, 5, 8)])
def test_a_watershed_meets_on_the_ridge(tmp_path, block):
    x = np.arange(30)
    height = np.abs((x - 5) % 10 - 5) / 5  # valleys at 5, 15 and 25
    values = np.broadcast_to(1 - height, (5, 12, 30)).astype(np.float32)[:, :, :]
    values = 1 - values if values[0, 0, 5] > 0.5 else values
    found = objects(tmp_path, values, block, decoder="watershed", threshold=0.7, halo=(8, 16, 16)).run()
    groups = [np.unique(found[:, :, a:b]) for a, b in ((0, 10), (11, 20), (21, 30))]
    assert [len(g) for g in groups] == [1, 1, 1]
    assert len(np.unique(groups)) == 3
    assert (found > 0).all()


def test_seeds_that_are_too_small_do_not_count(tmp_path):
    values = np.full((1, 5, 12), 0.5, np.float32)
    values[0, 2, 1:4] = values[0, 2, 9] = 0
    for least, count in ((0, 2), (2, 1)):
        found = objects(tmp_path, values, (1, 5, 5), decoder="watershed", threshold=0.9, min_seed=least).run()
        assert len(np.unique(found)) == count
    sizes = np.unique(segment(values[None], decoder="watershed", threshold=0.9), return_counts=True)[1]
    small = segment(values[None], decoder="watershed", threshold=0.9, min_size=int(sizes.max()))
    assert np.unique(small, return_counts=True)[1].max() == sizes.max()


def test_objects_within_a_mask_and_above_a_threshold():
    values = np.array([0.2, 0.5, 0.6, 0.9, 0.9], np.float32).reshape(1, 1, 1, 5)
    assert segment(values, decoder="objects")[0, 0].tolist() == [0, 0, 3, 3, 3]
    mask = np.array([1, 1, 1, 0, 1]).reshape(1, 1, 5)
    assert segment(values, decoder="objects", mask=mask)[0, 0].tolist() == [0, 0, 3, 0, 5]
