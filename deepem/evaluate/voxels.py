"""Scores of what is predicted voxel by voxel: binary maps, classes, affinities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from deepem.evaluate.overlaps import Array, Overlaps, totals
from deepem.evaluate.ranking import LIMIT, Ranking
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


class Binary:
    """Scores of a binary map, block by block; see `binary`."""

    def __init__(self, threshold: float = 0.5, *, limit: int = LIMIT) -> None:
        self.threshold = threshold
        self.ranking = Ranking(limit)
        self.hits = self.alarms = self.missed = 0

    def add(self, probability: Array, truth: Array, *, mask: Array | None = None) -> None:
        """Count a block; voxels of mask 0 do not count."""
        probability, truth = np.asarray(probability), np.asarray(truth)
        _check_probability("probability", probability)
        _check_shapes("probability", probability.shape, truth.shape, mask)
        event = truth > 0
        if mask is not None:
            probability, event = probability[mask > 0], event[mask > 0]
        self.ranking.add(probability, event)
        called = probability >= self.threshold
        self.hits += int(np.count_nonzero(called & event))
        self.alarms += int(np.count_nonzero(called & ~event))
        self.missed += int(np.count_nonzero(event & ~called))

    def result(self) -> dict[str, float]:
        """The scores, the `threshold`, and the `share` of the voxels that are events."""
        return {
            **counted(self.hits, self.alarms, self.missed),
            "auc": self.ranking.auc(),
            "average_precision": self.ranking.average_precision(),
            "threshold": self.threshold,
            "share": self.ranking.share,
        }


def binary(probability: Array, truth: Array, *, threshold: float = 0.5, mask: Array | None = None) -> dict[str, float]:
    """Precision, recall, F1 and Jaccard index at a threshold, and two scores that need none.

    `average_precision` is the sum over distinct probabilities of (recall_n - recall_{n-1}) * precision_n; `auc` the
    area under the ROC curve, with ties counting half.

    Args:
        probability: Numbers in [0, 1] of any shape; those at or above the threshold are called.
        truth: The same shape; voxels above 0 should be called.
        threshold: Where to call.
        mask: Voxels where it is 0 do not count.

    Returns:
        `precision`, `recall`, `f1`, `jaccard`, `auc`, `average_precision`, the `threshold` and the `share` of voxels
        that should be called. NaN is what has no value: precision where nothing is called, recall without events.

    Raises:
        InputError: the shapes differ, a probability is NaN, or integers above 1 are given.
    """
    score = Binary(threshold)
    score.add(probability, truth, mask=mask)
    return score.result()


class Semantic:
    """Scores of classes, block by block; see `semantic`."""

    def __init__(self, classes: Iterable[int] | None = None) -> None:
        self.classes = None if classes is None else sorted(classes)
        self.overlaps = Overlaps()

    def add(self, prediction: Array, truth: Array, *, mask: Array | None = None) -> None:
        """Count a block; voxels of mask 0 do not count."""
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        if prediction.ndim == truth.ndim + 1:
            prediction = prediction.argmax(0)
        self.overlaps.add(prediction, truth, mask=mask)

    def result(self) -> dict[str, Any]:
        """`classes`, `iou_mean` and `accuracy`."""
        table = self.overlaps.table()
        right = dict(_pairs(*totals(*(column[table.truth == table.segment] for column in (table.truth, table.voxels)))))
        there, called = dict(_pairs(*table.by_truth())), dict(_pairs(*table.by_segment()))
        rows = {}
        for name in self.classes if self.classes is not None else sorted({*there, *called}):
            hits = right.get(name, 0)
            row = counted(hits, called.get(name, 0) - hits, there.get(name, 0) - hits)
            rows[name] = {"iou": row.pop("jaccard"), **row, "voxels": there.get(name, 0)}
        ious = [row["iou"] for row in rows.values() if row["voxels"]]
        voxels = sum(there.values())
        return {
            "classes": rows,
            "iou_mean": math.fsum(ious) / len(ious) if ious else math.nan,
            "accuracy": sum(right.values()) / voxels if voxels else math.nan,
        }


def semantic(
    prediction: Array, truth: Array, *, classes: Iterable[int] | None = None, mask: Array | None = None
) -> dict[str, Any]:
    """Scores of classes that exclude each other; class 0 is one like any other.

    Args:
        prediction: Class of each voxel, or with one axis more, in front, the probability of each class.
        truth: Class of each voxel.
        classes: The classes to report; by default those that occur on either side.
        mask: Voxels where it is 0 do not count.

    Returns:
        `classes`, {class: {`iou`, `precision`, `recall`, `f1`, `voxels` of the truth}}; `iou_mean`, over the classes
        that the truth has; `accuracy`. NaN is what has no value.

    Raises:
        InputError: the shapes differ, or classes are not whole numbers from 0 on.
    """
    score = Semantic(classes)
    score.add(prediction, truth, mask=mask)
    return score.result()


class Affinity:
    """Average precision of cut edges, block by block; see `affinity`."""

    def __init__(self, edges: Sequence[Vec3], *, limit: int = LIMIT) -> None:
        self.edges = [vec3(edge) for edge in edges]
        self.rankings = [Ranking(limit) for _ in self.edges]

    def add(self, affinity: Array, truth: Array, *, at: Sequence[int] = (0, 0, 0), mask: Array | None = None) -> None:
        """Count the edges whose affinity is stored in a block.

        Args:
            affinity: (E, Z, Y, X) in [0, 1], the block.
            truth: (Z, Y, X) ids of the block and of what is round it: an edge over the block's face needs both ends.
                Pairs with an end outside this array do not count.
            at: Where the block begins within `truth`, (z, y, x).
            mask: Of the shape of `truth`; pairs with an end of mask 0 do not count.
        """
        affinity, truth = np.asarray(affinity), np.asarray(truth)
        _check_probability("affinity", affinity)
        if affinity.ndim != 4 or len(affinity) != len(self.edges):
            raise InputError("affinity", f"shape {affinity.shape}", f"{len(self.edges)} channels (E, Z, Y, X)")
        inner = tuple(slice(a, a + n) for a, n in zip(at, affinity.shape[1:], strict=True))
        if truth.ndim != 3 or truth[inner].shape != affinity.shape[1:]:
            raise InputError("truth", f"shape {truth.shape}", f"one that holds {affinity.shape[1:]} at {tuple(at)}")
        if mask is not None and mask.shape != truth.shape:
            raise InputError("mask", f"shape {mask.shape}", f"that of the truth, {truth.shape}")
        for channel, edge, ranking in zip(affinity, self.edges, self.rankings, strict=True):
            first, second = _ends(edge, at, channel.shape, truth.shape)
            a, b = truth[first], truth[second]
            cut = (a != b) | (a == 0)
            score = 0.0 - channel[tuple(slice(s.start - o, s.stop - o) for s, o in zip(first, at, strict=True))]
            if mask is not None:
                counts = (mask[first] > 0) & (mask[second] > 0)
                score, cut = score[counts], cut[counts]
            ranking.add(score, cut)

    def result(self) -> dict[str, Any]:
        """`average_precision`, the mean over edges, and `edges`."""
        rows = {
            ",".join(map(str, edge)): {"average_precision": ranking.average_precision(), "share": ranking.share}
            for edge, ranking in zip(self.edges, self.rankings, strict=True)
        }
        values = [row["average_precision"] for row in rows.values()]
        return {"average_precision": math.fsum(values) / len(values) if values else math.nan, "edges": rows}


def affinity(affinities: Array, truth: Array, *, edges: Sequence[Vec3], mask: Array | None = None) -> dict[str, Any]:
    """How well low affinities tell the pairs of voxels that belong apart, edge by edge.

    Such cut pairs are few (one in twenty or so), which is what average precision is for. A pair is cut unless both
    voxels have the same id and it is not 0.

    Args:
        affinities: (E, Z, Y, X) in [0, 1]; the one at v is that of v and v - edge.
        truth: (Z, Y, X) ids.
        edges: The (dz, dy, dx) of each channel.
        mask: (Z, Y, X); pairs with an end of mask 0 do not count.

    Returns:
        `average_precision`, the mean over edges; `edges`, {"dz,dy,dx": {`average_precision`, `share`}}, where the share
        of cut pairs is the average precision of chance.

    Raises:
        InputError: the shapes do not fit, or an affinity is NaN.
    """
    score = Affinity(edges)
    score.add(affinities, truth, mask=mask)
    return score.result()


def counted(hits: int, alarms: int, missed: int) -> dict[str, float]:
    """Precision, recall, F1 and Jaccard index of counts; NaN where there is nothing to divide by."""
    return {
        "precision": hits / (hits + alarms) if hits + alarms else math.nan,
        "recall": hits / (hits + missed) if hits + missed else math.nan,
        "f1": 2 * hits / (2 * hits + alarms + missed) if hits + alarms + missed else math.nan,
        "jaccard": hits / (hits + alarms + missed) if hits + alarms + missed else math.nan,
    }


def _ends(
    edge: Vec3, at: Sequence[int], size: Sequence[int], whole: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels v of a block and of their partners v - edge, where both lie in the array around it."""
    first, second = [], []
    for d, begin, n, length in zip(edge, at, size, whole, strict=True):
        low = max(begin, d)
        high = max(low, min(begin + n, length + d))
        first.append(slice(low, high))
        second.append(slice(low - d, high - d))
    return tuple(first), tuple(second)


def _pairs(ids: Array, voxels: Array) -> Iterable[tuple[int, int]]:
    return zip(ids.tolist(), voxels.tolist(), strict=True)


def _check_probability(name: str, values: Array) -> None:
    if values.dtype.kind in "iu" and values.size and values.max() > 1:
        raise InputError(name, f"{values.dtype} up to {values.max()}", "numbers in [0, 1]: divide uint8 by 255")


def _check_shapes(name: str, shape: tuple[int, ...], wanted: tuple[int, ...], mask: Array | None) -> None:
    if shape != wanted:
        raise InputError(name, f"shape {shape}", f"that of the truth, {wanted}")
    if mask is not None and mask.shape != wanted:
        raise InputError("mask", f"shape {mask.shape}", f"that of the truth, {wanted}")
