"""Agglomeration by mean affinity: repeatedly join the two regions with the highest mean affinity.

When two edges become one, the mean of the new edge lies between the two old means. Therefore, if an edge is the best of
both its regions, this pair will be joined whatever happens elsewhere. Each round joins all such pairs at once with
array operations. When few of them are left, a heap joins the remaining pairs one by one (Sumengen et al. 2021,
arXiv:2105.11653). Both give the same merges as one global order. Ties are broken by a hash of the edge, which depends
neither on the blocks nor on the machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from deepem.segment.graph import Ints, Table, united
from deepem.segment.runs import starts
from deepem.segment.tree import MergeTree

Keys = NDArray[np.uint64]
_FEW = 1 / 2000
"""Below this share of pairs per edge, a round in whole arrays costs more than the heap."""


@dataclass(frozen=True)
class _Edges:
    """The remaining edges between regions, in any order."""

    u: Ints
    v: Ints
    sums: Ints
    counts: Ints
    keys: Keys

    def __len__(self) -> int:
        return len(self.u)

    @property
    def means(self) -> NDArray[np.float64]:
        return self.sums / self.counts

    def take(self, which: NDArray[np.bool_]) -> _Edges:
        return _Edges(self.u[which], self.v[which], self.sums[which], self.counts[which], self.keys[which])


def merge_tree(table: Table, count: int, floor: float = 0.0) -> MergeTree:
    """Compute the order in which regions are joined, down to a mean affinity.

    Args:
        table: Edges between regions 0, 1, ...
        count: Number of regions.
        floor: Leave out merges at this mean affinity or less, in units of 1 / 65535.
    """
    edges = _Edges(table.pairs[:, 0], table.pairs[:, 1], table.sums, table.counts, hashed(len(table)))
    edges = _within_reach(edges, floor, count)
    found: list[tuple[Ints, Ints, NDArray[np.float64]]] = []
    while len(edges):
        means = edges.means
        chosen = _best_of_both(edges, means, count) & (means > floor)
        few = int(chosen.sum())
        if few <= len(edges) * _FEW:
            if few:
                found.append(_one_by_one(_within_reach(edges, floor, count), floor))
            break
        found.append((edges.u[chosen], edges.v[chosen], means[chosen]))
        edges = _contracted(edges, chosen, count)
    none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    u, v, scores = (np.concatenate([merges[i] for merges in (none, *found)]) for i in range(3))
    return MergeTree.of(u, v, scores, count=count, floor=floor)


def _within_reach(edges: _Edges, floor: float, count: int) -> _Edges:
    """Keep the edges whose two regions are connected by edges above the floor; no other edge can ever be joined."""
    above = edges.take(edges.means > floor)
    group = united(np.stack([above.u, above.v], axis=1), count)
    return edges.take(group[edges.u] == group[edges.v])


def hashed(count: int) -> Keys:
    """A distinct pseudo-random number for each of 0, 1, ... (the finaliser of SplitMix64)."""
    x: Keys = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _best_of_both(edges: _Edges, means: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Mask of the edges that are the best of both their regions: the highest mean, ties broken by the lowest key."""
    top = np.full(count, -1.0)
    np.maximum.at(top, edges.u, means)
    np.maximum.at(top, edges.v, means)
    at_u, at_v = means == top[edges.u], means == top[edges.v]
    least = np.full(count, np.iinfo(np.uint64).max)
    np.minimum.at(least, edges.u[at_u], edges.keys[at_u])
    np.minimum.at(least, edges.v[at_v], edges.keys[at_v])
    best: NDArray[np.bool_] = at_u & at_v & (edges.keys == least[edges.u]) & (edges.keys == least[edges.v])
    return best


def _contracted(edges: _Edges, chosen: NDArray[np.bool_], count: int) -> _Edges:
    """Join the two regions of each chosen edge under the lower of their numbers, and update the edges."""
    to = np.arange(count)
    low, high = edges.u[chosen], edges.v[chosen]
    to[high] = low
    changed = np.zeros(count, bool)
    changed[low] = changed[high] = True
    touched = changed[edges.u] | changed[edges.v]
    rest, moved = edges.take(~touched), edges.take(touched & ~chosen)
    u, v = to[moved.u], to[moved.v]
    moved = _parallel_summed(replace(moved, u=np.minimum(u, v), v=np.maximum(u, v)), count)
    return _Edges(**{f.name: np.concatenate([getattr(x, f.name) for x in (rest, moved)]) for f in fields(_Edges)})


def _parallel_summed(edges: _Edges, count: int) -> _Edges:
    """Sum parallel edges; the new key is the greatest, so that no edge sorts before the edges that it was made from."""
    if not len(edges):
        return edges
    key = edges.u * count + edges.v
    order = np.argsort(key, kind="stable")
    start = starts(key[order])
    sums, counts = (np.add.reduceat(x[order], start) for x in (edges.sums, edges.counts))
    keys = np.maximum.reduceat(edges.keys[order], start)
    return _Edges(edges.u[order][start], edges.v[order][start], sums, counts, keys)


def _one_by_one(edges: _Edges, floor: float) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Yield the remaining merges, best first."""
    merges = list(_heap(edges, floor))
    u, v, means = zip(*merges, strict=True)
    return np.array(u, np.int64), np.array(v, np.int64), np.array(means)


def _heap(edges: _Edges, floor: float) -> Iterator[tuple[int, int, float]]:
    """Yield (u, v, mean) of each merge; the region with fewer neighbours is merged into the other."""
    beside: dict[int, dict[int, tuple[int, int, int]]] = {}
    rows = zip(*(x.tolist() for x in (edges.u, edges.v, edges.sums, edges.counts, edges.keys)), strict=True)
    for u, v, total, n, key in rows:
        beside.setdefault(u, {})[v] = beside.setdefault(v, {})[u] = (total, n, key)
    best = edges.means > floor
    few = edges.take(best)
    heap = list(zip((-few.means).tolist(), few.keys.tolist(), few.u.tolist(), few.v.tolist(), strict=True))
    heapq.heapify(heap)
    while heap:
        height, key, u, v = heapq.heappop(heap)
        edge = beside.get(u, {}).get(v)
        if edge is None or edge[2] != key or edge[0] / edge[1] != -height:
            continue
        if len(beside[u]) < len(beside[v]):
            u, v = v, u
        yield u, v, -height
        near = beside[u]
        del near[v], beside[v][u]
        for x, (total, n, k) in beside.pop(v).items():
            others = beside[x]
            del others[v]
            if x in near:
                more, m, other = near[x]
                total, n, k = total + more, n + m, max(k, other)
            near[x] = others[u] = (total, n, k)
            if total / n > floor:
                heapq.heappush(heap, (-total / n, k, u, x))
