"""Scores a prediction against its ground truth by kind of task, for `deepem evaluate` and during training.

KINDS has one entry per kind of `deepem.tasks`. An entry has four functions, and the scores to choose a checkpoint by::

    score     (case, ways) -> figures; they say if a threshold was chosen by the same truth that it is scored on
    choose    (case, ways) -> the best parameters for a case, with the curve they were chosen from
    report    (case, parameters) -> figures of a case for parameters that were chosen on another case
    brief     figures of `score` -> the few numbers to follow during training, by name
    best_by   names in `brief` that tell which checkpoint is best -> whether lower is better

Voxels are read block by block; only segmentations are held in memory as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.build.cases import Case, Ways, grown
from deepem.data import target
from deepem.evaluate import Affinity, Binary, Semantic, choose, curve, instances, reported
from deepem.evaluate.ranking import Ranking
from deepem.segment import sweep
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

Array = NDArray[Any]
Figures = dict[str, Any]


def score_affinity(case: Case, ways: Ways) -> Figures:
    """Score an affinity output: its cut edges, and its segmentations at the threshold that is best for this truth."""
    ranked = Affinity(case.edges)
    reach = [max(abs(edge[axis]) for edge in case.edges) for axis in range(3)]
    for box in case.blocks():
        area = grown(box, reach, case.whole)
        at = vec3(b - a for b, a in zip(box.begin, area.begin, strict=True))
        ranked.add(case.predicted(box), case.truth(area)[0], at=at, mask=case.masked(area))
    found = ranked.result()
    figures: Figures = {
        "cut_edges": {
            "average_precision": found["average_precision"],
            "by_edge": {edge: row["average_precision"] for edge, row in found["edges"].items()},
            "share": {edge: row["share"] for edge, row in found["edges"].items()},
        }
    }
    curves = curves_of(case, ways)
    best = {name: choose(rows, ways.by) for name, rows in curves.items() if _labelled(rows)}
    return {**figures, "segmentation": best, "curves": curves}


def curves_of(case: Case, ways: Ways) -> dict[str, list[Figures]]:
    """Return decoder -> a row of scores for each threshold."""
    wanted = ways.of(case.edges)
    if not wanted:
        return {}
    affinity, truth, mask = case.predicted(case.whole), case.truth(case.whole)[0], case.masked(case.whole)
    return {
        name: curve(sweep(affinity, thresholds, edges=case.edges, decoder=name), truth, mask=mask, decoder=name)
        for name, thresholds in wanted.items()
    }


def choose_affinity(case: Case, ways: Ways) -> Figures:
    """Choose the decoder and threshold that are best for a case."""
    curves = curves_of(case, ways)
    if not curves:
        raise InputError(case.where, f"the edges {list(case.edges)}", "the nearest edge along every axis")
    return {"chosen": choose([row for rows in curves.values() for row in rows], ways.by), "curves": curves}


def report_affinity(case: Case, chosen: Mapping[str, Any]) -> Figures:
    """Score the segmentation of a case with a decoder and threshold that were chosen elsewhere."""
    name = str(chosen["decoder"])
    rows = curves_of(case, Ways((name,), (float(chosen["threshold"]),)))[name]
    return {"segmentation": {name: reported(rows, chosen)}}


def brief_affinity(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return ARAND and VOI at the best threshold; nothing if there are only long-range edges."""
    if not figures["segmentation"]:
        return {}
    best = min(figures["segmentation"].values(), key=lambda row: row["error"])
    split, merge = best["split"], best["merge"]
    return {
        "arand": best["error"], "voi": split + merge, "voi_split": split, "voi_merge": merge,
        "threshold": best["threshold"],
    }  # fmt: skip


def score_binary(case: Case, ways: Ways) -> Figures:
    """Return ROC and F1 of each channel of a binary output."""
    return {"channels": {str(i): _of_ranking(ranking) for i, ranking in enumerate(_rankings(case))}}


def _rankings(case: Case) -> list[Ranking]:
    found: list[Ranking] = []
    for box in case.blocks():
        predicted, mask = case.predicted(box), case.masked(box)
        events = case.events(box, len(predicted)) > 0
        found = found or [Ranking() for _ in predicted]
        for i, ranking in enumerate(found):
            scores, event = predicted[i], events[i]
            ranking.add(scores if mask is None else scores[mask], event if mask is None else event[mask])
    return found


def _of_ranking(ranking: Ranking) -> Figures:
    scores, values = _f1(ranking)
    known = values.size and not math.isnan(values[0])
    best = int(np.argmax(values)) if known else 0
    called = int(np.count_nonzero(scores >= 0.5))
    return {
        "auc": ranking.auc(),
        "average_precision": ranking.average_precision(),
        "f1_best": float(values[best]) if known else math.nan,
        "f1_best_threshold": float(scores[best]) if known else math.nan,
        "f1_at_0.5": float(values[called - 1]) if called else (0.0 if known else math.nan),
        "share": ranking.share,
        "own_truth": True,
    }


def _f1(ranking: Ranking) -> tuple[Array, Array]:
    """Return distinct scores in falling order, and F1 = 2 hits / (called + events) with each score as the threshold."""
    scores, hits, alarms = ranking.falling()
    if not (hits.size and hits[-1]):
        return scores, np.full(hits.size, math.nan)
    return scores, 2 * hits / (hits + alarms + hits[-1])


def choose_binary(case: Case, ways: Ways) -> Figures:
    """Choose the threshold with the best F1 for each channel."""
    found = [_of_ranking(ranking) for ranking in _rankings(case)]
    thresholds = [row["f1_best_threshold"] for row in found]
    chosen = {"thresholds": thresholds, "chosen_by": "f1", "own_truth": True}
    if any(math.isnan(value) for value in thresholds):
        raise InputError(case.where, "a channel without anything to find", "a volume to choose a threshold on")
    return {"chosen": chosen, "channels": {str(i): row for i, row in enumerate(found)}}


def report_binary(case: Case, chosen: Mapping[str, Any]) -> Figures:
    """Score each channel at a threshold that was chosen elsewhere."""
    scores = [Binary(threshold) for threshold in chosen["thresholds"]]
    for box in case.blocks():
        predicted, mask = case.predicted(box), case.masked(box)
        if len(predicted) != len(scores):
            raise InputError(case.where, f"{len(predicted)} channels", f"{len(scores)}, as where it was chosen")
        events = case.events(box, len(predicted))
        for i, score in enumerate(scores):
            score.add(predicted[i], events[i], mask=mask)
    rows = {str(i): score.result() | {"own_truth": False} for i, score in enumerate(scores)}
    return {"at_chosen_threshold": rows}


def brief_binary(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the means over the channels."""
    rows = figures["channels"].values()
    return {name: math.fsum(row[key] for row in rows) / len(rows) for name, key in (("f1", "f1_best"), ("auc", "auc"))}


def score_semantic(case: Case, ways: Ways) -> Figures:
    """Return precision, recall and IoU of each class, and their means over the classes that occur."""
    score = Semantic(range(case.task.channels))
    for box in case.blocks():
        label, mask = case.truth(box), case.masked(box)
        target.check_channels(case.where, case.task, 1, label)
        target.check_classes(case.where, case.task, case.task.channels - 1, label, None if mask is None else mask[None])
        predicted = case.predicted(box)
        score.add(predicted[0] if case.classes else predicted, label[0], mask=mask)
    found = score.result()
    voxels = sum(row["voxels"] for row in found["classes"].values())
    rows = {
        str(c): {
            **{name: row[name] for name in ("precision", "recall", "iou")},
            "share": row["voxels"] / voxels if voxels else math.nan,
        }
        for c, row in found["classes"].items()
    }
    there = [row for row in rows.values() if row["share"] > 0]
    names = ("precision", "recall", "iou") if there else ()  # a class never predicted has precision 0
    mean = {name: float(np.mean(np.nan_to_num([row[name] for row in there]))) for name in names}
    return {"classes": rows, "mean": mean, "accuracy": found["accuracy"]}


def choose_nothing(case: Case, ways: Ways) -> Figures:
    """Return no parameters: this kind has none to choose."""
    return {"chosen": {}}


def report_semantic(case: Case, chosen: Mapping[str, Any]) -> Figures:
    """Return the scores of classes, which have no parameters to choose."""
    return score_semantic(case, Ways())


def brief_semantic(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the means over the classes that occur."""
    return {"iou": figures["mean"].get("iou", math.nan), "accuracy": figures["accuracy"]}


def score_instance(case: Case, ways: Ways) -> Figures:
    """Return average precision, F1 and panoptic quality of object masks."""
    truth, found = _distinct(case.truth(case.whole)), case.predicted(case.whole)
    return {"instances": instances(found[0], truth, mask=case.masked(case.whole))}


def _distinct(truth: Array) -> Array:
    """Return one volume of ids (Z, Y, X) from a label volume of each class, whose ids may be the same."""
    if len(truth) == 1:
        one: Array = truth[0]
        return one
    found, last = np.zeros(truth.shape[1:], np.int64), 0
    for ids in truth:
        names, number = np.unique(ids, return_inverse=True)
        number = np.where(names == 0, 0, np.arange(len(names)) + last + 1)[number.reshape(ids.shape)]
        found, last = np.where(number > 0, number, found), last + len(names)
    return found


def report_instance(case: Case, chosen: Mapping[str, Any]) -> Figures:
    """Return the scores of objects, which have no parameters to choose."""
    return score_instance(case, Ways())


def brief_instance(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return average precision, F1 and panoptic quality at an overlap (IoU) of 0.5."""
    found = figures["instances"]
    return {"ap": found["ap"][0.5], "f1": found["f1"], "pq": found["pq"]}


@dataclass(frozen=True)
class Kind:
    """An entry of `KINDS`; see the module docstring."""

    score: Callable[[Case, Ways], Figures]
    choose: Callable[[Case, Ways], Figures]
    report: Callable[[Case, Mapping[str, Any]], Figures]
    brief: Callable[[Mapping[str, Any]], dict[str, float]]
    best_by: Mapping[str, bool]


KINDS: dict[str, Kind] = {
    "affinity": Kind(score_affinity, choose_affinity, report_affinity, brief_affinity, {"arand": True, "voi": True}),
    "binary": Kind(score_binary, choose_binary, report_binary, brief_binary, {"f1": False, "auc": False}),
    "semantic": Kind(score_semantic, choose_nothing, report_semantic, brief_semantic, {"iou": False}),
    "instance": Kind(
        score_instance, choose_nothing, report_instance, brief_instance, {"ap": False, "f1": False, "pq": False}
    ),
}

LOWER_IS_BETTER = {name: lower for kind in KINDS.values() for name, lower in kind.best_by.items()}
"""Names of scores to choose a checkpoint by -> whether lower is better."""


def _labelled(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(not math.isnan(row["error"]) for row in rows)
