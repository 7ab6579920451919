"""The scores in the folder of a run: what `deepem evaluate --json` wrote there, in rows of named figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.tools.run_record import read_json
from deepem.tools.score_text import ELSEWHERE, OWN_TRUTH

Columns = Mapping[str, str]

HIGHER, LOWER = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"

RETRIEVAL: Columns = {"precision": f"precision {HIGHER}", "recall": f"recall {HIGHER}"}
OBJECTS: Columns = {"ap_mean": f"mean AP {HIGHER}", "f1": f"F1 {HIGHER}", "pq": f"panoptic quality {HIGHER}"}
VOI: Columns = {"split": f"VOI split, bits {LOWER}", "merge": f"VOI merge, bits {LOWER}"}
RAND: Columns = {"error": f"adapted Rand error {LOWER}"}

PARTS: Mapping[str, Columns] = {
    "segmentation": {
        **RAND, **VOI, "score": f"CREMI score {LOWER}", "threshold": "threshold", "segments": "segments",
    },
    "adapted_rand": {**RAND, **RETRIEVAL},
    "voi": VOI,
    "cremi": {"score": f"CREMI score {LOWER}"},
    "oracle": {"error": f"Rand error, oracle merge {LOWER}"},
    "erl": {"erl": f"ERL, nm {HIGHER}", "nerl": f"NERL {HIGHER}", "merge_threshold": "merge threshold, nodes"},
    "cut_edges": {"average_precision": f"AP of cut edges {HIGHER}"},
    "channels": {
        "auc": f"ROC AUC {HIGHER}", "average_precision": f"average precision {HIGHER}",
        "f1_at_0.5": f"F1 at 0.5 {HIGHER}", "f1_best": f"best F1 {HIGHER}", "f1_best_threshold": "threshold of it",
    },
    "at_chosen_threshold": {
        **RETRIEVAL, "f1": f"F1 {HIGHER}", "jaccard": f"Jaccard {HIGHER}", "threshold": "threshold",
    },
    "classes": {**RETRIEVAL, "iou": f"IoU {HIGHER}", "share": "share of voxels"},
    "mean": {**RETRIEVAL, "iou": f"mean IoU {HIGHER}"},
    "instances": OBJECTS,
    "boxes": OBJECTS,
    "detections": {**RETRIEVAL, "f1": f"F1 {HIGHER}"},
}  # fmt: skip
"""Part of a result -> the figures to show of it, with their names; an arrow says which way is better."""

BY_NAME = {"segmentation": "", "channels": "channel ", "at_chosen_threshold": "channel ", "classes": "class "}
"""Parts with a row of figures per name, and what stands before the name."""

TITLES = {"instances": "by mask", "boxes": "by box", "mean": "all classes"}


@dataclass(frozen=True)
class Row:
    """Figures that belong together.

    Attributes:
        title: What they are of, such as the decoder; may be empty.
        figures: (name, value as text) pairs.
        note: What one has to know about them; may be empty.
    """

    title: str
    figures: Sequence[tuple[str, str]]
    note: str = ""


@dataclass(frozen=True)
class Result:
    """The scores of one file.

    Attributes:
        output: The output, or ``segmentation``.
        file: What was scored.
        truth: Against which truth.
        source: The JSON file that says so.
        rows: The scores.
    """

    output: str
    file: str
    truth: str
    source: str
    rows: Sequence[Row]


def results(folder: Path) -> Iterator[Result]:
    """Yield the scores in the JSON files of a run: in its folder, scores/ and forward/."""
    for path in sorted(path for part in ("", "scores", "forward") for path in (folder / part).glob("*.json")):
        held = read_json(path)
        for entry in held if isinstance(held, list) else ():
            if isinstance(entry, Mapping) and {"output", "file", "truth"} <= set(entry):
                rows = list(rows_of(entry))
                source = str(path.relative_to(folder))
                if rows:
                    yield Result(str(entry["output"]), str(entry["file"]), str(entry["truth"]), source, rows)


def rows_of(entry: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of figures of one file: those without a name together, then one row per name."""
    single: dict[str, list[tuple[str, str]]] = {}
    named: list[Row] = []
    for part, columns in PARTS.items():
        held = entry.get(part)
        if not isinstance(held, Mapping):
            continue
        if part not in BY_NAME:
            figures = [*_figures(held, columns), *_by_edge(held)]
            single.setdefault(TITLES.get(part, ""), []).extend(figures)
            continue
        for name, row in held.items():
            if isinstance(row, Mapping) and (figures := _figures(row, columns)):
                named.append(Row(f"{BY_NAME[part]}{name}", figures, _note(row)))
    single.setdefault(TITLES["mean"], []).extend(_figures(entry, {"accuracy": f"accuracy {HIGHER}"}))
    yield from (Row(title, figures) for title, figures in single.items() if figures)
    yield from named


def _figures(held: Mapping[str, Any], columns: Columns) -> list[tuple[str, str]]:
    return [(name, figure(held[key])) for key, name in columns.items() if type(held.get(key)) in (int, float)]


def _by_edge(held: Mapping[str, Any]) -> list[tuple[str, str]]:
    edges = held.get("by_edge")
    return _figures(edges, {edge: f"edge {edge} {HIGHER}" for edge in edges}) if isinstance(edges, Mapping) else []


def figure(value: float) -> str:
    """Return a score with four digits after the point, a count without any."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"


def _note(row: Mapping[str, Any]) -> str:
    """Say by which truth a threshold was chosen."""
    if isinstance(row.get("own_truth"), bool):
        return f"threshold {OWN_TRUTH if row['own_truth'] else ELSEWHERE}"
    return f"best F1: threshold {OWN_TRUTH}" if "f1_best" in row else ""
