"""Blocks in any order, killed and done again, from arrays in files: no byte changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.phases import Phases
from segment.volumes import LONG, XYZ, cells, noisy, random_affinities

from deepem.segment import segment
from deepem.segment.plan import Plan, memory_of, seams
from deepem.segment.select import group, grow_tree
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, vec3

SHAPE = (9, 20, 22)


def phases(folder, decoder, begin=(0, 0, 0), **given):
    edges = LONG if decoder == "mutex" else XYZ
    affinities = decoder not in ("objects", "watershed")
    values = noisy(cells(SHAPE), edges)[: None if affinities else 1]
    plan = Plan(Box.of_size(begin, SHAPE), (4, 11, 7), decoder, edges if affinities else (), 0.7, **given)
    folder.mkdir(exist_ok=True)
    return Phases(folder, plan, values)


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components", "objects", "watershed"])
def test_a_block_done_again_in_another_order_changes_no_byte(tmp_path, decoder):
    one, two = (phases(tmp_path / name, decoder) for name in "ab")
    wants = one.run().copy()
    order = np.random.default_rng(0).permutation(len(two.plan.boxes)).tolist()
    for index in (*order, *order[:5]):  # the first five again, as after a kill
        two.label(index)
    two.solve()
    for index in (*order, *order[:5]):
        two.relabel(index)
    np.testing.assert_array_equal(two.out, wants)
    np.testing.assert_array_equal(two.labels, one.labels)
    for index in order:
        assert (tmp_path / f"a/{index}.npz").read_bytes() == (tmp_path / f"b/{index}.npz").read_bytes()
    assert (tmp_path / "a/regions.npz").read_bytes() == (tmp_path / "b/regions.npz").read_bytes()


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components", "objects"])
def test_the_phases_give_what_the_call_in_memory_gives(tmp_path, decoder):
    run = phases(tmp_path, decoder)
    edges = run.plan.edges or None
    wants = segment(run.values, edges=edges, decoder=decoder, threshold=0.7, min_size=9)
    np.testing.assert_array_equal(run.run(min_size=9), wants)


def test_the_place_of_the_volume_does_not_matter(tmp_path):
    here, there = phases(tmp_path / "a", "agglomerate"), phases(tmp_path / "b", "agglomerate", (100, -7, 3))
    np.testing.assert_array_equal(here.run(), there.run())


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "objects"])
def test_a_block_reads_itself_and_its_halo(tmp_path, decoder):
    run = phases(tmp_path, decoder)
    halo = {"agglomerate": 2, "mutex": 7, "objects": 0}[decoder]
    for index, box in enumerate(run.plan.boxes):
        run.reads.clear()
        run.label(index)
        (read,) = run.reads
        assert run.plan.grown(box, [halo] * 3).contains(read)


def test_labels_serve_any_threshold(tmp_path):
    run = phases(tmp_path, "agglomerate")
    run.run()
    tree = grow_tree(run.regions, 0.2)
    for threshold in (0.3, 0.7, 0.9):
        np.testing.assert_array_equal(
            group(run.plan, run.regions, threshold, tree), group(run.plan, run.regions, threshold)
        )
        run.solve(threshold)
        for index in range(len(run.plan.boxes)):
            run.relabel(index)
        np.testing.assert_array_equal(run.out, segment(run.values, threshold=threshold))


def test_a_graph_that_is_too_large_is_refused_with_its_size(tmp_path):
    from deepem.segment.join import join

    run = phases(tmp_path, "agglomerate")
    run.run()
    with pytest.raises(InputError, match=r"region graph: got [\d,]+ edges of blocks, wants 10 at most"):
        join(run.plan, run.load, most_edges=10)


def test_the_memory_of_a_graph_is_known_before_the_start():
    plan = Plan(Box((0, 0, 0), (1000, 1000, 1000)), (64, 128, 128), edges=XYZ)
    assert plan.graph_bytes == 5_300_000 * 400
    assert memory_of(plan) == (64 * 128 * 128 * 70, 5_300_000 * 400)


def test_a_block_of_affinities_takes_the_same_memory_without_a_graph():
    graph, none = (Plan(Box((0, 0, 0), (90, 90, 90)), (64, 64, 64), d, XYZ) for d in ("agglomerate", "components"))
    assert memory_of(none) == (memory_of(graph)[0], 0)


STEP = st.integers(-4, 4)


@given(edge=st.tuples(STEP, STEP, STEP).filter(any), block=st.tuples(*[st.integers(1, 8)] * 3))
@settings(max_examples=60, deadline=None)
def test_every_pair_of_voxels_is_met_once(edge, block):
    """Within a block or in one seam."""
    volume = Box((2, -3, 1), (7, 3, 8))
    plan = Plan(volume, block, "objects")
    met = np.zeros(volume.size, int)
    at = [np.array(volume.begin)]
    for box in plan.boxes:
        for voxel in np.ndindex(box.size):
            v = np.array(box.begin) + voxel
            if all(b <= p < e for b, p, e in zip(box.begin, v - edge, box.end, strict=True)):
                met[tuple(v - at[0])] += 1
        for seam in seams(box, edge, volume):
            assert box.contains(seam)
            assert volume.contains(seam.shift(vec3(-d for d in edge)))
            met[seam.shift(-at[0]).slices()] += 1
    wants = np.zeros(volume.size, int)
    for voxel in np.ndindex(volume.size):
        wants[voxel] = all(0 <= p < n for p, n in zip(np.subtract(voxel, edge), volume.size, strict=True))
    np.testing.assert_array_equal(met, wants)


def test_sums_and_counts_of_the_graph_are_those_of_all_pairs_of_voxels(tmp_path):
    values = random_affinities((5, 6, 7))
    plan = Plan(Box((0, 0, 0), (5, 6, 7)), (2, 3, 4), "agglomerate", XYZ)
    run = Phases(tmp_path, plan, values)
    run.run()
    fragments = segment(values, threshold=1)
    wants = {}
    for channel, edge in zip(np.floor(values * np.float32(65535) + np.float32(0.5)).astype(int), XYZ, strict=True):
        for v in np.ndindex(fragments.shape):
            u = tuple(np.subtract(v, edge))
            if min(u) >= 0 and fragments[u] != fragments[v] and fragments[u] and fragments[v]:
                pair = tuple(sorted((int(fragments[u]), int(fragments[v]))))
                total, count = wants.get(pair, (0, 0))
                wants[pair] = total + int(channel[v]), count + 1
    near = run.regions.near
    found = zip(run.regions.ids[near.pairs].tolist(), near.sums.tolist(), near.counts.tolist(), strict=True)
    assert {tuple(pair): (total, count) for pair, total, count in found} == wants
