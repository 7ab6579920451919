"""Score a segmentation at several thresholds and choose the best one.

A threshold chosen on the same ground truth that it is scored on looks too good. Choose on one volume and report on
another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from deepem.evaluate.overlaps import Array, Overlaps
from deepem.evaluate.partition import adapted_rand_of, cremi_of, voi_of
from deepem.utils.errors import InputError

Row = dict[str, Any]

PARAMETERS = ("threshold", "decoder")
"""Parameters that a choice fixes, if the rows have them."""

CRITERIA: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "adapted_rand": lambda row: float(row["error"]),
    "voi": lambda row: float(row["split"] + row["merge"]),
    "cremi": lambda row: float(row["score"]),
    "f1": lambda row: -float(row["f1"]),
    "jaccard": lambda row: -float(row["jaccard"]),
    "ap": lambda row: -float(row["ap_mean"]),
    "pq": lambda row: -float(row["pq"]),
}
"""Criteria for choosing a row; for each of them, lower is better."""


def row_of(overlaps: Overlaps, **parameters: Any) -> Row:
    """One row of a curve: parameters such as `threshold` and `decoder`, and the scores of their segmentation."""
    table = overlaps.table()
    labelled = table.labelled
    return {
        **parameters,
        **adapted_rand_of(table),
        **voi_of(table),
        "score": cremi_of(table)["score"],
        "segments": len({*labelled.segment.tolist()} - {0}),
        "objects": len({*labelled.truth.tolist()}),
    }


def curve(
    segmentations: Iterable[tuple[float, Array]], truth: Array, *, mask: Array | None = None, **parameters: Any
) -> list[Row]:
    """Score the segmentations of several thresholds, for example to plot split against merge.

    Args:
        segmentations: (threshold, ids) pairs, consumed one at a time.
        truth: Ids; 0 means unlabelled and does not count.
        mask: Voxels where it is 0 do not count.
        parameters: Further parameters of the segmentations, such as decoder="mutex"; copied into every row.

    Returns:
        Rows {`threshold`, `error`, `precision`, `recall`, `split`, `merge`, `score` (CREMI), `segments`, `objects`}.
    """
    rows = []
    for threshold, ids in segmentations:
        overlaps = Overlaps()
        overlaps.add(ids, truth, mask=mask)
        rows.append(row_of(overlaps, threshold=threshold, **parameters))
    return rows


def choose(curve: Sequence[Mapping[str, Any]], by: str = "adapted_rand") -> Row:
    """Choose the best row of a curve; the first one wins a tie.

    Args:
        curve: Rows with parameters and scores, of one decoder or several.
        by: One of `CRITERIA`.

    Returns:
        A copy of the row, with `chosen_by`, and `own_truth` True, because it is scored on the truth that it was chosen
        on.

    Raises:
        InputError: the criterion is unknown, rows lack its score, or every score is NaN.
    """
    if by not in CRITERIA:
        raise InputError("by", by, f"one of {', '.join(CRITERIA)}")
    try:
        values = [CRITERIA[by](row) for row in curve]
    except KeyError as error:
        raise InputError("curve", f"a row without {error}", f"rows that hold what {by} needs") from error
    known = [(value, i) for i, value in enumerate(values) if not math.isnan(value)]
    if not known:
        raise InputError("curve", f"{len(values)} rows without a score", "at least one threshold that can be scored")
    return {**curve[min(known)[1]], "chosen_by": by, "own_truth": True}


def reported(curve: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> Row:
    """Find the row with the chosen parameters in the curve of another volume.

    Args:
        curve: Rows of the volume to report on.
        chosen: Result of `choose` on the tuning volume.

    Returns:
        A copy of the row, with `chosen_by`, and `own_truth` False.

    Raises:
        InputError: the curve has no such row, or more than one.
    """
    wanted = {name: chosen[name] for name in PARAMETERS if name in chosen}
    rows = [row for row in curve if all(row.get(name) == value for name, value in wanted.items())]
    if len(rows) != 1:
        raise InputError("curve", f"{len(rows)} rows of {wanted}", "one row with the chosen parameters")
    return {**rows[0], "chosen_by": chosen["chosen_by"], "own_truth": False}
