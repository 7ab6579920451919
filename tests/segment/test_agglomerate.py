"""Agglomeration by mean affinity against a slow reference, and against other programs on the same fragments."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.phases import tree_of
from segment.volumes import LONG, XYZ, cells, noisy, same_partition

from deepem.segment import agglomerate, segment
from deepem.segment.agglomerate import hashed, merge_tree
from deepem.segment.graph import Table, summed, tabulate
from deepem.segment.tree import edge_list
from deepem.utils.errors import InputError


def random_graph(seed, count=14, rows=40, highest=65535):
    rng = np.random.default_rng(seed)
    u, v = rng.integers(0, count, (2, rows))
    counts = rng.integers(1, 9, rows)
    return summed(u, v, rng.integers(0, highest + 1, rows) * counts, counts)


def star(count=200, seed=0):
    """A region that all others touch: a merge at a time, as the last step of an agglomeration is."""
    rng = np.random.default_rng(seed)
    spokes, ring = np.arange(1, count), np.arange(1, count - 1)
    u, v = np.append(np.zeros(count - 1, np.int64), ring), np.append(spokes, ring + 1)
    return summed(u, v, rng.integers(1, 60000, len(u)), np.ones(len(u), np.int64))


def greedy(table, count, level):
    """One merge after the other: the highest mean first, of equals the lowest key; means are exact."""
    edges = {}
    for (u, v), total, n, key in zip(table.pairs.tolist(), table.sums, table.counts, hashed(len(table)), strict=True):
        edges[u, v] = int(total), int(n), int(key)
    group, heights = list(range(count)), []
    while edges:
        (u, v), (total, n, _) = min(edges.items(), key=lambda e: (-Fraction(e[1][0], e[1][1]), e[1][2]))
        if Fraction(total, n) <= level:
            break
        heights.append(total / n)
        group = [u if g == v else g for g in group]
        again = {}
        for (a, b), (s, m, k) in edges.items():
            a, b = sorted((u if a == v else a, u if b == v else b))
            if a != b:
                s0, m0, k0 = again.get((a, b), (0, 0, 0))
                again[a, b] = s + s0, m + m0, max(k, k0)
        edges = again
    return np.array(group), heights


@given(seed=st.integers(0, 10**6), highest=st.sampled_from([1, 2, 3, 65535]), threshold=st.sampled_from([0, 0.3, 0.8]))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("few", [0, 1 / 500, 2])
def test_the_merges_are_those_of_one_global_order(few, seed, highest, threshold):
    table = random_graph(seed, highest=highest)
    old, agglomerate._FEW = agglomerate._FEW, few
    try:
        tree = merge_tree(table, 14)
    finally:
        agglomerate._FEW = old
    found, (wants, heights) = tree.cut(threshold), greedy(table, 14, round(threshold * 65535))
    assert same_partition(found, wants)
    np.testing.assert_array_equal(tree.scores[tree.scores > round(threshold * 65535)], heights)
    np.testing.assert_array_equal(found, [np.flatnonzero(found == f)[0] for f in found])


def test_a_region_that_takes_in_one_after_the_other():
    table = star()
    for threshold in (0.1, 0.5, 0.9):
        assert same_partition(merge_tree(table, 200).cut(threshold), greedy(table, 200, threshold * 65535)[0])


def test_a_tree_down_to_a_floor_is_the_top_of_the_whole_tree():
    table = star()
    whole, top = merge_tree(table, 200), merge_tree(table, 200, floor=20000)
    np.testing.assert_array_equal(top.scores, whole.scores[whole.scores > 20000])
    np.testing.assert_array_equal(top.cut(0.4), whole.cut(0.4))
    with pytest.raises(InputError, match=r"threshold: got 0.2, wants 0.3052 or more"):
        top.cut(0.2)


def test_a_saved_tree_is_cut_again(tmp_path):
    tree = merge_tree(star(), 200, floor=100)
    again = tree_of(tmp_path / "tree.npz", tree)
    for threshold in (0.05, 0.5, 1):
        np.testing.assert_array_equal(again.cut(threshold), tree.cut(threshold))
    assert (again.count, again.floor) == (200, 100)
    assert (np.diff(tree.scores) <= 0).all()


def test_the_mean_weighs_contacts_by_their_size():
    """0 and 1 are joined; 2 then has one contact of 1 x 0.9 and one of 3 x 0.3, a mean of 0.45 with the two."""
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    table = Table(pairs, np.array([65535, 58981, 3 * 19660]), np.array([1, 1, 3]))
    tree = merge_tree(table, 3)
    np.testing.assert_allclose(tree.scores / 65535, [1, 0.45], atol=1e-4)
    assert tree.cut(0.44).tolist() == [0, 0, 0]
    assert tree.cut(0.46).tolist() == [0, 0, 2]


def test_what_lies_above_the_threshold_is_joined_and_what_equals_it_is_not():
    tree = merge_tree(Table(np.array([[0, 1]]), np.array([32768]), np.array([1])), 2)
    assert tree.cut(0.5).tolist() == [0, 1]
    assert tree.cut(0.4999).tolist() == [0, 0]


def fragments_and_graph():
    values = noisy(cells(), XYZ[::-1])
    ids = segment(values, edges=XYZ[::-1], threshold=1)
    labels = np.unique(ids, return_inverse=True)[1].astype(np.uint64).reshape(ids.shape)
    quantised = np.rint(values * 65535).astype(np.uint16)
    pairs = zip(XYZ[::-1], quantised, strict=True)
    table = tabulate(labels, pairs)
    return values, labels, table


@pytest.mark.parametrize("threshold", [0.75, 0.85, 0.95])
def test_the_partition_is_that_of_waterz_on_the_same_fragments(threshold):
    waterz = pytest.importorskip("waterz")
    values, labels, table = fragments_and_graph()
    found = merge_tree(table, int(labels.max()) + 1).cut(threshold)[labels.astype(np.int64)]
    for theirs in waterz.agglomerate(values, [1 - threshold], fragments=labels.copy()):
        assert same_partition(found, theirs.copy())
    assert 4 < len(np.unique(found)) < labels.max()
    np.testing.assert_array_equal(labels == 0, found == 0)


def test_the_partition_is_that_of_gasp():
    from bioimage_cpp.graph import UndirectedGraph
    from bioimage_cpp.graph.agglomeration import GaspClusterPolicy

    _, labels, table = fragments_and_graph()
    count = int(labels.max()) + 1
    graph = UndirectedGraph.from_unique_edges(count, table.pairs.astype(np.uint64))
    weights = table.means / 65535 - 0.6
    theirs = GaspClusterPolicy(linkage="mean").optimize(graph, weights, edge_sizes=table.counts.astype(np.float64))
    assert same_partition(merge_tree(table, count).cut(0.6), theirs)


@pytest.mark.parametrize("first", [1, 300, 1 << 24])
def test_a_table_counts_every_pair_of_voxels_along_any_edge(first):
    """Ids of one byte, of two, and too long to be packed."""
    rng = np.random.default_rng(first)
    labels = rng.integers(0, 4, (4, 5, 6))
    labels = np.where(labels, labels + first, 0).astype(np.min_scalar_type(first + 4))
    values = rng.integers(0, 65536, (len(LONG), *labels.shape)).astype(np.uint16)
    wants = {}
    for edge, affinity in zip(LONG, values, strict=True):
        for v in np.ndindex(labels.shape):
            u = tuple(np.subtract(v, edge))
            if all(0 <= p < n for p, n in zip(u, labels.shape, strict=True)):
                pair = tuple(sorted((int(labels[u]), int(labels[v]))))
                if pair[0] and pair[0] != pair[1]:
                    total, count = wants.get(pair, (0, 0))
                    wants[pair] = total + int(affinity[v]), count + 1
    table = tabulate(labels, zip(LONG, values, strict=True))
    found = zip(table.pairs.tolist(), table.sums.tolist(), table.counts.tolist(), strict=True)
    assert {tuple(pair): (total, count) for pair, total, count in found} == wants
    assert table.pairs.tolist() == sorted(map(list, wants))


def test_the_region_graph_as_a_list_of_edges():
    table = Table(np.array([[0, 2]]), np.array([65535]), np.array([2]))
    rows = edge_list(table, np.array([7, 9, 2**60], np.uint64))
    assert rows.tolist() == [(7, 2**60, 0.5, 2)]
