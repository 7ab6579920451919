"""Scores of voxel-wise predictions: binary maps, classes, affinities."""

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
        """Add a block; voxels where the mask is 0 do not count."""
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
        """Return the scores, the `threshold`, and the `share` of voxels that are events."""
        return {
            **counted(self.hits, self.alarms, self.missed),
            "auc": self.ranking.auc(),
            "average_precision": self.ranking.average_precision(),
            "threshold": self.threshold,
            "share": self.ranking.share,
        }


def binary(probability: Array, truth: Array, *, threshold: float = 0.5, mask: Array | None = None) -> dict[str, float]:
    """Precision, recall, F1 and Jaccard index at a threshold, and two scores that do not depend on one.

    `average_precision` is the sum over distinct probabilities of (recall_n - recall_{n-1}) * precision_n; `auc` the
    area under the ROC curve, with ties counting half.

    Args:
        probability: Numbers in [0, 1] of any shape; voxels at or above the threshold are predicted positive.
        truth: Array of the same shape; voxels above 0 are positive.
        threshold: Threshold on the probability.
        mask: Voxels where it is 0 do not count.

    Returns:
        `precision`, `recall`, `f1`, `jaccard`, `auc`, `average_precision`, the `threshold` and the `share` of voxels
        that are positive. Undefined values are NaN: precision without predicted positives, recall without true ones.

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
        """Add a block; voxels where the mask is 0 do not count."""
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        if prediction.ndim == truth.ndim + 1:
            prediction = prediction.argmax(0)
        self.overlaps.add(prediction, truth, mask=mask)

    def result(self) -> dict[str, Any]:
        """Return `classes`, `iou_mean` and `accuracy`."""
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
    """Scores of mutually exclusive classes; class 0 is a class like any other.

    Args:
        prediction: Class of each voxel, or the probability of each class along an additional first axis.
        truth: Class of each voxel.
        classes: Classes to report; by default all that occur in the prediction or the truth.
        mask: Voxels where it is 0 do not count.

    Returns:
        `classes`, {class: {`iou`, `precision`, `recall`, `f1`, `voxels` of the truth}}; `iou_mean`, over the classes
        that occur in the truth; `accuracy`. Undefined values are NaN.

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
        """Add the edges whose affinity is stored in a block.

        Args:
            affinity: (E, Z, Y, X) in [0, 1], the affinities of the block.
            truth: (Z, Y, X) ids of the block and its surroundings, since an edge across a face of the block needs both
                ends. Pairs with an end outside this array do not count.
            at: First voxel of the block within `truth`, (z, y, x).
            mask: Mask of the shape of `truth`; pairs with an end where it is 0 do not count.
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
        """Return `average_precision`, the mean over edges, and `edges`."""
        rows = {
            ",".join(map(str, edge)): {"average_precision": ranking.average_precision(), "share": ranking.share}
            for edge, ranking in zip(self.edges, self.rankings, strict=True)
        }
        values = [row["average_precision"] for row in rows.values()]
        return {"average_precision": math.fsum(values) / len(values) if values else math.nan, "edges": rows}


def affinity(affinities: Array, truth: Array, *, edges: Sequence[Vec3], mask: Array | None = None) -> dict[str, Any]:
    """Average precision of low affinities as detectors of cut pairs of voxels, for each edge.

    A pair of voxels is cut unless both have the same id other than 0. Cut pairs are rare (about one in twenty), which
    is where average precision is informative.

    Args:
        affinities: (E, Z, Y, X) in [0, 1]; the value at v relates v and v - edge.
        truth: (Z, Y, X) ids.
        edges: The (dz, dy, dx) of each channel.
        mask: (Z, Y, X); pairs with an end where it is 0 do not count.

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
    """Precision, recall, F1 and Jaccard index from counts; NaN where the denominator is 0."""
    return {
        "precision": hits / (hits + alarms) if hits + alarms else math.nan,
        "recall": hits / (hits + missed) if hits + missed else math.nan,
        "f1": 2 * hits / (2 * hits + alarms + missed) if hits + alarms + missed else math.nan,
        "jaccard": hits / (hits + alarms + missed) if hits + alarms + missed else math.nan,
    }


def _ends(
    edge: Vec3, at: Sequence[int], size: Sequence[int], whole: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels v of a block and of their partners v - edge, for pairs within the surrounding array."""
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
