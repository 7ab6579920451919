"""Scores of instances such as nuclei or cells, by mask or by bounding box."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepem.evaluate.box_overlap import bounding_boxes, overlapping
from deepem.evaluate.matching import coco_precision, matched, precision_recall, ranked
from deepem.evaluate.overlaps import Array, Overlaps
from deepem.utils.errors import InputError

THRESHOLDS = (0.5, 0.75, 0.9)

MEAN_OVER = tuple(i / 100 for i in range(50, 100, 5))
"""COCO's thresholds: .5, .55, ... .95."""

Certainty = Mapping[int, float] | Sequence[float] | Array
"""Scores by id, or in ascending order of the ids."""


@dataclass(frozen=True)
class Candidates:
    """Overlapping pairs in one volume: indices into its predicted and true ids, and the overlap of each pair."""

    predicted_ids: Array
    true_ids: Array
    predicted: Array
    true: Array
    iou: Array

    def above(self, threshold: float) -> Candidates:
        """Return the pairs whose overlap reaches a threshold."""
        keep = self.iou >= threshold
        return Candidates(self.predicted_ids, self.true_ids, self.predicted[keep], self.true[keep], self.iou[keep])


@dataclass
class _Volume:
    overlaps: Overlaps
    scores: list[Certainty] = field(default_factory=list)
    given: list[tuple[Array, Array]] = field(default_factory=list)

    def certainty(self, ids: Array) -> Array:
        """Look up the score of each id."""
        known: dict[int, float] = {}
        for scores in self.scores:
            if isinstance(scores, Mapping):
                known |= {int(name): float(score) for name, score in scores.items()}
            elif len(scores) != len(ids):
                raise InputError("scores", f"{len(scores)} scores", f"one for each of {len(ids)} predicted objects")
            else:
                known |= dict(zip(ids.tolist(), map(float, scores), strict=True))
        if missing := [name for name in ids.tolist() if name not in known]:
            raise InputError("scores", f"none for the object {missing[0]}", "a score for every predicted object")
        return np.array([known[name] for name in ids.tolist()])


class Instances:
    """Scores of instances by mask, block by block and volume by volume; see `instances`."""

    places = False

    def __init__(self, *, thresholds: Sequence[float] = THRESHOLDS) -> None:
        if wrong := [t for t in thresholds if not 0 < t <= 1]:
            raise InputError("thresholds", wrong[0], "overlaps above 0, at most 1")
        self.thresholds = tuple(map(float, thresholds))
        self.volumes: dict[Hashable, _Volume] = {}

    def add(
        self,
        labels: Array,
        truth: Array,
        *,
        scores: Certainty | None = None,
        mask: Array | None = None,
        begin: Sequence[int] = (0, 0, 0),
        volume: Hashable = 0,
    ) -> None:
        """Add a block.

        Args:
            labels: (Z, Y, X) ids; 0 is background.
            truth: (Z, Y, X) ids; 0 is background.
            scores: Confidence of each predicted object: by id, or for the whole volume in ascending order of its ids.
            mask: Voxels where it is 0 do not count.
            begin: First voxel of the block in its volume, (z, y, x); used for bounding boxes.
            volume: Name of the volume; ids are unique within a volume only. A volume without any true or predicted
                object counts too.
        """
        self._of(volume, scores).overlaps.add(labels, truth, mask=mask, begin=begin)

    def result(self) -> dict[str, Any]:
        """Return the scores over all volumes added so far."""
        found = {name: self._candidates(volume) for name, volume in self.volumes.items()}
        predicted = sum(len(c.predicted_ids) for c in found.values())
        true = sum(len(c.true_ids) for c in found.values())
        hits: dict[float, int] = {}
        for t in {*self.thresholds, *MEAN_OVER}:
            chosen = {name: _match(c.above(t)) for name, c in found.items()}
            hits[t] = sum(len(overlaps) for overlaps in chosen.values())
            if t == MEAN_OVER[0]:
                overlap = math.fsum(value for overlaps in chosen.values() for value in overlaps.tolist())
        ap = {t: _ratio(n, predicted + true - n) for t, n in hits.items()}
        first = hits[MEAN_OVER[0]]
        result: dict[str, Any] = {
            "ap": {t: ap[t] for t in self.thresholds},
            "ap_mean": math.fsum(ap[t] for t in MEAN_OVER) / len(MEAN_OVER),
            "f1": _ratio(2 * first, predicted + true),
            "pq": _ratio(2 * overlap, predicted + true),
            "precision": _ratio(first, predicted),
            "recall": _ratio(first, true),
            "objects": true,
            "predicted": predicted,
        }
        if any(volume.scores for volume in self.volumes.values()):
            curves = self.curves({*self.thresholds, *MEAN_OVER})
            areas = {t: coco_precision(**curve) if true else math.nan for t, curve in curves.items()}
            result["ap_ranked"] = {t: areas[t] for t in self.thresholds}
            result["ap_ranked_mean"] = math.fsum(areas[t] for t in MEAN_OVER) / len(MEAN_OVER)
        return result

    def curves(self, thresholds: Any = None) -> dict[float, dict[str, list[float]]]:
        """Return precision and recall at every distinct score: {threshold: {`recall`, `precision`}}.

        Raises:
            InputError: a predicted object has no score.
        """
        thresholds = self.thresholds if thresholds is None else thresholds
        found: dict[float, dict[str, list[float]]] = {}
        volumes = [(self._candidates(volume), volume) for volume in self.volumes.values()]
        certainty = [volume.certainty(c.predicted_ids) for c, volume in volumes]
        scores = np.concatenate([np.zeros(0), *certainty])
        true = sum(len(c.true_ids) for c, _ in volumes)
        for t in thresholds if true else ():
            hit = [np.zeros(0, bool)]
            for (candidates, _), sure in zip(volumes, certainty, strict=True):
                kept = candidates.above(t)
                chosen = ranked(kept.predicted, kept.true, kept.iou, np.argsort(-sure, kind="stable").tolist())
                hit.append(np.isin(np.arange(len(sure)), kept.predicted[chosen]))
            recall, precision = precision_recall(scores, np.concatenate(hit), true)
            found[t] = {"recall": recall, "precision": precision}
        return found or {t: {"recall": [], "precision": []} for t in thresholds}

    def _of(self, volume: Hashable, scores: Certainty | None) -> _Volume:
        kept = self.volumes.setdefault(volume, _Volume(Overlaps(self.places)))
        if scores is not None:
            kept.scores.append(scores)
        return kept

    def _candidates(self, volume: _Volume) -> Candidates:
        """Find the pairs whose mask IoU reaches the lowest threshold."""
        table = volume.overlaps.table()
        true, true_voxels = table.by_truth()
        predicted, predicted_voxels = table.by_segment()
        both = table.where((table.truth != 0) & (table.segment != 0))
        a, b = np.searchsorted(predicted, both.segment), np.searchsorted(true, both.truth)
        iou = both.voxels / (predicted_voxels[a] + true_voxels[b] - both.voxels)
        keep = iou >= min(*self.thresholds, MEAN_OVER[0])
        skip_a, skip_b = int((predicted == 0).sum()), int((true == 0).sum())  # if id 0 occurs, it comes first
        return Candidates(predicted[skip_a:], true[skip_b:], a[keep] - skip_a, b[keep] - skip_b, iou[keep])


class Boxes(Instances):
    """Scores of instances by bounding box, block by block and volume by volume; see `boxes`."""

    places = True

    def add(
        self,
        labels: Array,
        truth: Array,
        *,
        scores: Certainty | None = None,
        mask: Array | None = None,
        begin: Sequence[int] = (0, 0, 0),
        volume: Hashable = 0,
    ) -> None:
        """Add a block of labels, or boxes (N, 6) of both sides: z1, y1, x1, z2, y2, x2, half-open."""
        if labels.ndim == 2 and truth.ndim == 2:
            for name, given in (("labels", labels), ("truth", truth)):
                if given.shape[1] != 6:
                    raise InputError(name, f"shape {given.shape}", "labels (Z, Y, X) or boxes (N, 6)")
            self._of(volume, scores).given.append((labels, truth))
        else:
            super().add(labels, truth, scores=scores, mask=mask, begin=begin, volume=volume)

    def _candidates(self, volume: _Volume) -> Candidates:
        """Find the pairs whose box IoU reaches the lowest threshold; boxes added as such are numbered from 1."""
        (predicted, found), (true, wanted) = (self._boxes(volume, side) for side in (0, 1))
        return Candidates(predicted, true, *overlapping(found, wanted, min(*self.thresholds, MEAN_OVER[0])))

    def _boxes(self, volume: _Volume, side: int) -> tuple[Array, Array]:
        """Return ids and boxes of the predicted (side 0) or the true (side 1) objects."""
        ids, made = bounding_boxes(volume.overlaps.table(), truth=side == 1)
        if not volume.given:
            return ids, made
        if len(ids):
            raise InputError("boxes", "labels and boxes of one volume", "one of the two")
        made = np.concatenate([pair[side] for pair in volume.given])
        return np.arange(1, len(made) + 1, dtype=np.uint64), made


def instances(
    labels: Array,
    truth: Array,
    *,
    scores: Certainty | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    mask: Array | None = None,
) -> dict[str, Any]:
    """Scores of instances by mask: average precision, F1 and panoptic quality.

    A predicted and a true object can match if their IoU = |A and B| / |A or B| reaches a threshold. Each object has at
    most one match. Pairs are assigned so that their number is maximal, and then so that their summed IoU is largest.
    With TP matches, FP unmatched predicted and FN unmatched true objects,

        ap = TP / (TP + FP + FN)      f1 = 2 TP / (2 TP + FP + FN)      pq = sum of IoU over TP / (TP + FP / 2 + FN / 2)

    `ap_ranked` is COCO's area under the precision-recall curve. Predicted objects are matched from the highest score
    down, each to the best true object that is still unmatched. Precision is averaged over recalls 0, .01, ... 1, using
    the highest precision at that recall or above. Objects of equal score enter the curve together.

    Sources: Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7 (ap); Kirillov et al. 2019, arXiv:1801.00868 (pq);
    Lin et al. 2014, arXiv:1405.0312 (ap_ranked).

    Args:
        labels: (Z, Y, X) ids; 0 is background.
        truth: (Z, Y, X) ids; 0 is background.
        scores: Confidence of each predicted object: {id: score}, or a sequence in ascending order of the ids.
        thresholds: Overlaps to report.
        mask: Voxels where it is 0 do not count.

    Returns:
        `ap` {threshold: value}; `ap_mean` over .5, .55, ... .95; `f1`, `pq`, `precision` and `recall` at .5; the
        numbers of `objects` and `predicted`; with scores also `ap_ranked` {threshold: value} and `ap_ranked_mean`.
        Values are NaN if there is neither a true nor a predicted object.

    Raises:
        InputError: the shapes differ, a threshold is not in (0, 1], or a predicted object has no score.
    """
    score = Instances(thresholds=thresholds)
    score.add(labels, truth, scores=scores, mask=mask)
    return score.result()


def boxes(
    labels: Array,
    truth: Array,
    *,
    scores: Certainty | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    mask: Array | None = None,
) -> dict[str, Any]:
    """Scores of instances by bounding box: like `instances`, with the IoU of boxes in place of masks.

    Args:
        labels: (Z, Y, X) ids, or boxes (N, 6): z1, y1, x1, z2, y2, x2, half-open.
        truth: Labels or boxes, in the same form.
        scores: Confidence of each predicted object: {id: score}, or a sequence in ascending order of the ids, or in the
            order of the boxes.
        thresholds: Overlaps to report.
        mask: Voxels where it is 0 do not count; only allowed with labels.

    Returns:
        The same dict as `instances`.

    Raises:
        InputError: as for `instances`.
    """
    score = Boxes(thresholds=thresholds)
    score.add(labels, truth, scores=scores, mask=mask)
    return score.result()


def _match(candidates: Candidates) -> Array:
    """Return the overlaps of the matched pairs."""
    chosen = candidates.iou[matched(candidates.predicted, candidates.true, candidates.iou)]
    return np.asarray(chosen)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
