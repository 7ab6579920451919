"""Format scores as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Figures = Mapping[str, Any]

OWN_TRUTH = "chosen by this truth itself: flatters"
ELSEWHERE = "chosen on another volume"
MOST = 20
"""Number of missing objects to list."""


def table(result: Figures) -> str:
    """Return a result as lines of text."""
    head = f"{result['output']}  ({result['file']}, against {result['truth']})"
    return "\n".join([head, *(line for name in LINES if name in result for line in LINES[name](result[name]))])


def without_nan(value: Any) -> Any:
    """Return a copy for JSON: text as keys, and None for NaN, which JSON lacks."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _channels(rows: Figures) -> Iterator[str]:
    for name, row in rows.items():
        yield (
            f"  channel {name}    ROC AUC {row['auc']:.4f}    average precision {row['average_precision']:.4f} "
            f"(chance {row['share']:.4f})"
        )
        best, threshold = row["f1_best"], row["f1_best_threshold"]
        yield f"               F1 {best:.4f} at threshold {threshold:.3f}, the best ({OWN_TRUTH})"
        yield f"               F1 {row['f1_at_0.5']:.4f} at 0.5"


def _at_threshold(rows: Figures) -> Iterator[str]:
    for name, row in rows.items():
        yield (
            f"  channel {name}    precision {row['precision']:.4f}   recall {row['recall']:.4f}   F1 {row['f1']:.4f}   "
            f"Jaccard {row['jaccard']:.4f}   (at {row['threshold']:.3f}, {ELSEWHERE})"
        )


def _classes(rows: Figures) -> Iterator[str]:
    for name, row in rows.items():
        yield (
            f"  class {name:<3}    precision {row['precision']:.4f}   recall {row['recall']:.4f}   "
            f"IoU {row['iou']:.4f}   (share {row['share']:.4f})"
        )


def _mean(mean: Figures) -> Iterator[str]:
    if mean:
        yield (
            f"  mean         precision {mean['precision']:.4f}   recall {mean['recall']:.4f}   "
            f"IoU {mean['iou']:.4f}   (of classes that are there)"
        )


def _accuracy(value: float) -> Iterator[str]:
    yield f"  accuracy     {value:.4f}"


def _cut_edges(cut: Figures) -> Iterator[str]:
    yield f"  cut edges    average precision {cut['average_precision']:.4f}, the mean over edges"
    for edge, value in cut["by_edge"].items():
        yield f"    {edge:>9}  {value:.4f}  (chance {cut['share'][edge]:.4f})"


def _segmentation(rows: Figures) -> Iterator[str]:
    for name, row in rows.items():
        yield (
            f"  {name:<12} adapted Rand error {row['error']:.4f}   VOI split {row['split']:.3f} merge "
            f"{row['merge']:.3f} bits   CREMI score {row['score']:.4f}"
        )
        how = OWN_TRUTH if row["own_truth"] else ELSEWHERE
        yield f"               {row['segments']} segments at threshold {row['threshold']:g}, {how}"


def _adapted_rand(row: Figures) -> Iterator[str]:
    yield (
        f"  adapted Rand error {row['error']:.4f}   precision {row['precision']:.4f} (falls with mergers)   recall "
        f"{row['recall']:.4f}   (self-pairs count; a predicted 0 is a segment per voxel)"
    )


def _voi(row: Figures) -> Iterator[str]:
    yield (
        f"  VOI split {row['split']:.4f}   merge {row['merge']:.4f} bits   (a predicted 0 is a segment like any other)"
    )


def _cremi(row: Figures) -> Iterator[str]:
    yield f"  CREMI score {row['score']:.4f} = {row['formula']}"


def _oracle(row: Figures) -> Iterator[str]:
    yield (
        f"  oracle merge of the fragments: adapted Rand error {row['error']:.4f}   VOI split {row['split']:.4f} merge "
        f"{row['merge']:.4f} bits, the best that any agglomeration could reach"
    )


def _erl(row: Figures) -> Iterator[str]:
    yield (
        f"  ERL {row['erl']:,.0f} nm of {row['best_erl']:,.0f}   NERL {row['nerl']:.4f}   (merge threshold "
        f"{row['merge_threshold']} nodes; {row['skeletons']} skeletons, {row['split_edges']} edges split, "
        f"{row['missed_edges']} missed, {len(row['merged_segments'])} segments merge)"
    )


def _objects(rows: Figures) -> Iterator[str]:
    for kind, whole, part in (("splits", "object", "segment"), ("merges", "segment", "object")):
        for row in rows[kind]:
            parts = ", ".join(f"{p[part]} ({p['voxels']:,})" for p in row["largest"][:3])
            yield (
                f"  {'split' if kind == 'splits' else 'merge'}  {whole} {row[whole]}: {row['bits']:.4f} bits, "
                f"{row['parts']} {part}s: {parts}; box {row['begin']} to {row['end']}"
            )
    if rows["missing"]:
        count, more = len(rows["missing"]), " ..." if len(rows["missing"]) > MOST else ""
        ids = " ".join(map(str, rows["missing"][:MOST]))
        yield f"  {count:,} missing object{'s'[: count > 1]}, without any segment: id{'s'[: count > 1]} {ids}{more}"


def _instances(row: Figures, by: str = "mask") -> Iterator[str]:
    each = "   ".join(f"AP{threshold:g} {value:.4f}" for threshold, value in row["ap"].items())
    yield f"  objects by {by}   {each}   mean {row['ap_mean']:.4f}   F1 {row['f1']:.4f}   PQ {row['pq']:.4f}"
    if "ap_ranked" in row:
        each = "   ".join(f"AP{threshold:g} {value:.4f}" for threshold, value in row["ap_ranked"].items())
        yield f"    ranked by score   {each}   mean {row['ap_ranked_mean']:.4f}   (area under precision and recall)"


def _boxes(row: Figures) -> Iterator[str]:
    yield from _instances(row, "box")


def _detections(row: Figures) -> Iterator[str]:
    by = (
        f"centroids within {row['distance_nm']:g} nm"
        if "distance_nm" in row
        else f"{row['min_overlap']} voxels or more"
    )
    yield (
        f"  detections   precision {row['precision']:.4f}   recall {row['recall']:.4f}   F1 {row['f1']:.4f}   "
        f"({row['found']} found, {len(row['missed'])} missed, {len(row['false_alarms'])} false; by {by})"
    )


LINES: dict[str, Callable[[Any], Iterator[str]]] = {
    "channels": _channels,
    "at_chosen_threshold": _at_threshold,
    "classes": _classes,
    "mean": _mean,
    "accuracy": _accuracy,
    "cut_edges": _cut_edges,
    "segmentation": _segmentation,
    "adapted_rand": _adapted_rand,
    "voi": _voi,
    "cremi": _cremi,
    "oracle": _oracle,
    "erl": _erl,
    "instances": _instances,
    "boxes": _boxes,
    "detections": _detections,
    "objects": _objects,
}
"""How to format each part of a result, in this order."""
