"""Figures of merit of predictions, and simple segmentations to measure them on.

Arrays are (Z, Y, X), affinities (E, Z, Y, X); an edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from deepem.utils.edges import edge_views
from deepem.utils.geometry import Vec3, vec3

Array = NDArray[Any]
NAN = float("nan")


@dataclass(frozen=True)
class Ranking:
    """Scores in falling order against an event: hits and false alarms at or above each distinct score."""

    scores: Array
    hits: Array
    alarms: Array

    @classmethod
    def of(cls, score: Array, event: Array) -> Ranking:
        """From scores and the voxels (boolean) that should have the high ones."""
        score, event = score.ravel(), event.ravel().astype(bool)
        order = np.argsort(-score, kind="stable")
        score, event = score[order], event[order]
        last = np.append(np.flatnonzero(np.diff(score)), score.size - 1) if score.size else np.zeros(0, int)
        hits = np.cumsum(event)[last]
        return cls(score[last], hits, last + 1 - hits)

    @property
    def share(self) -> float:
        """The event's share of the voxels: the average precision of chance."""
        return float(self.hits[-1] / (self.hits[-1] + self.alarms[-1])) if self.hits.size else NAN

    def auc(self) -> float:
        """Area under the ROC curve; 0.5 is chance."""
        if not (self.hits.size and self.hits[-1] and self.alarms[-1]):
            return NAN
        x, y = np.append(0, self.alarms) / self.alarms[-1], np.append(0, self.hits) / self.hits[-1]
        return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))

    def average_precision(self) -> float:
        """Sum over distinct scores of (recall_n - recall_{n-1}) * precision_n."""
        if not (self.hits.size and self.hits[-1]):
            return NAN
        precision = self.hits / (self.hits + self.alarms)
        return float(np.sum(np.diff(self.hits, prepend=0) * precision) / self.hits[-1])

    def f1(self) -> Array:
        """2 * hits / (called + events) at each distinct score."""
        if not (self.hits.size and self.hits[-1]):
            return np.full(self.hits.size, NAN)
        values: Array = 2 * self.hits / (self.hits + self.alarms + self.hits[-1])
        return values

    def best_f1(self) -> tuple[float, float]:
        """The highest F1 and the score to call from."""
        values = self.f1()
        if not values.size or np.isnan(values[0]):
            return NAN, NAN
        best = int(np.argmax(values))
        return float(values[best]), float(self.scores[best])

    def f1_at(self, score: float) -> float:
        """F1 when everything at or above a score is called."""
        values, called = self.f1(), int(np.sum(self.scores >= score))
        return float(values[called - 1]) if called else (NAN if np.isnan(values).all() else 0.0)


def cut_edges(affinity: Array, edge: Vec3, ids: Array, mask: Array | None = None) -> Ranking:
    """How well low affinities of one edge tell the pairs of voxels that belong apart.

    Such cut pairs are few (one in twenty or so), which is what average precision is for. Pairs with a voxel
    outside the volume or the mask do not count: the first planes of a positive edge have no partner.
    """
    p, _ = edge_views(affinity, edge)
    a, b = edge_views(ids, edge)
    counts = np.ones(a.shape, bool) if mask is None else np.logical_and(*edge_views(mask > 0, edge))
    return Ranking.of(1 - p[counts], ~((a == b) & (a != 0))[counts])


def segments(affinity: Array, edges: Sequence[Vec3], threshold: float) -> NDArray[np.int32]:
    """Segments 1, 2, ... of the voxels that edges with an affinity above a threshold connect; 0 where none does."""
    shape = affinity.shape[1:]
    index = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    pairs = []
    for channel, edge in zip(affinity, edges, strict=True):
        joined = edge_views(channel, edge)[0] > threshold
        pairs.append([view[joined] for view in edge_views(index, edge)])
    v, u = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = sparse.coo_matrix((np.ones(v.size, bool), (v, u)), shape=(index.size, index.size))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    connected = np.zeros(index.size, bool)
    connected[v] = connected[u] = True
    ids = np.zeros(index.size, np.int32)
    ids[connected] = np.unique(component[connected], return_inverse=True)[1] + 1
    return ids.reshape(shape)


def grown(ids: Array, smallest: int, reach: float, voxel_size: Sequence[float] = (1, 1, 1)) -> Array:
    """Segments of fewer than `smallest` voxels dissolved, and every free voxel given to the nearest one in reach.

    `reach` counts voxels along the finest axis.
    """
    kept = np.where((np.bincount(ids.ravel()) >= smallest)[ids], ids, 0)
    if not kept.any():
        return kept
    distance, nearest = ndimage.distance_transform_edt(
        kept == 0, sampling=np.divide(voxel_size, min(voxel_size)), return_indices=True
    )
    return np.where(distance <= reach, kept[tuple(nearest)], 0)


def by_components(
    affinity: Array, edges: Sequence[Vec3], thresholds: Iterable[float], voxel_size: Sequence[float] = (1, 1, 1)
) -> Iterator[tuple[float, Array]]:
    """(threshold, segments) from connected components: tiny ones dissolved, the rest grown a little."""
    for threshold in thresholds:
        yield threshold, grown(segments(affinity, edges, threshold), 50, 10, voxel_size)


def by_waterz(affinity: Array, edges: Sequence[Vec3], thresholds: Sequence[float]) -> list[tuple[float, Array]]:
    """(threshold, segments) from watershed and agglomeration by mean affinity (the package waterz)."""
    import waterz

    with _quiet():
        found = waterz.agglomerate(
            nearest_zyx(affinity, edges),
            list(thresholds),
            aff_threshold_low=0.05,
            aff_threshold_high=0.9995,
            scoring_function="OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
            discretize_queue=256,
        )
        # Every threshold is served in the same memory, hence the copy.
        return [(threshold, np.array(ids, copy=True)) for threshold, ids in zip(thresholds, found, strict=True)]


def hold_nearest(edges: Iterable[Vec3]) -> bool:
    """Whether edges hold the nearest one along each axis, of either sign, which waterz wants."""
    return {(0, 0, 1), (0, 1, 0), (1, 0, 0)} <= {vec3(abs(d) for d in edge) for edge in edges}


def nearest_zyx(affinity: Array, edges: Sequence[Vec3]) -> NDArray[np.float32]:
    """(3, Z, Y, X) float32: the affinity of each voxel to the one before it along z, y and x.

    An edge of -1 stores the affinity of a pair at its first voxel, here it is stored at its second.
    """
    along = np.zeros((3, *affinity.shape[1:]), np.float32)
    found = set()
    for channel, edge in zip(affinity, edges, strict=True):
        steps = [axis for axis, d in enumerate(edge) if d]
        if len(steps) == 1 and abs(edge[steps[0]]) == 1:
            forward = vec3(abs(d) for d in edge)
            edge_views(along[steps[0]], forward)[0][...] = edge_views(channel, edge)[0]
            found.add(steps[0])
    if found != {0, 1, 2}:
        raise ValueError(f"edges {list(edges)} do not hold the nearest one along each axis")
    return along


@dataclass(frozen=True)
class Agreement:
    """How a segmentation agrees with the truth, over the voxels that the truth labels.

    Attributes:
        are: Adapted Rand error, 1 - F1 of the pairs of voxels put together; 0 is perfect.
        split: H(segmentation | truth) in bits, what is cut too much.
        merge: H(truth | segmentation) in bits, what is joined too much.
        segments: Number of segments there.
    """

    are: float
    split: float
    merge: float
    segments: int


def agreement(ids: Array, truth: Array, mask: Array | None = None) -> Agreement:
    """Adapted Rand error and variation of information; voxels of truth 0 or mask 0 do not count."""
    counts = truth != 0 if mask is None else (truth != 0) & (mask > 0)
    if not counts.any():
        return Agreement(NAN, NAN, NAN, 0)
    a, b = (np.unique(x[counts], return_inverse=True)[1].astype(np.int64) for x in (truth, ids))
    both = np.unique(a * (b.max() + 1) + b, return_counts=True)[1].astype(np.float64)
    sizes = [np.bincount(x).astype(np.float64) for x in (a, b)]
    n = both.sum()
    together = np.sum(both**2) - n
    pairs = sum(np.sum(s**2) - n for s in sizes)
    entropy = [float(np.log2(n) - np.sum(s * np.log2(s)) / n) for s in (*sizes, both)]
    return Agreement(
        are=float(1 - 2 * together / pairs) if pairs else 0.0,
        split=max(entropy[2] - entropy[0], 0.0),
        merge=max(entropy[2] - entropy[1], 0.0),
        segments=len(sizes[1]),
    )


def confusion(found: Array, truth: Array, classes: int, mask: Array | None = None) -> NDArray[np.int64]:
    """(classes, classes): how many voxels of each true class (row) were found as each class (column)."""
    if mask is not None:
        found, truth = found[mask > 0], truth[mask > 0]
    pairs = truth.ravel().astype(np.int64) * classes + found.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def by_class(counts: NDArray[np.int64]) -> list[dict[str, float]]:
    """Precision, recall and IoU of each class of a confusion matrix, and its share of the voxels; NaN for 0 of 0."""
    rows = []
    for c, hits in enumerate(np.diag(counts)):
        called, there = counts[:, c].sum(), counts[c].sum()
        rows.append(
            {
                "precision": _ratio(hits, called),
                "recall": _ratio(hits, there),
                "iou": _ratio(hits, called + there - hits),
                "share": _ratio(there, counts.sum()),
            }
        )
    return rows


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else NAN


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what a C++ library writes to file descriptor 1 nowhere."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
