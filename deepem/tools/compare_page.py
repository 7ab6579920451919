"""Puts several runs on one HTML page: their curves over each other, their scores and where their options differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepem.tools import run_curves, run_scores
from deepem.tools.page_text import listed, render
from deepem.tools.run_page import figures, status
from deepem.tools.run_record import RunRecord
from deepem.tools.run_settings import settings_of

ALWAYS_DIFFER = ("exp_name",)


@dataclass(frozen=True)
class Column:
    """A run in the tables.

    Attributes:
        run: The run.
        label: A name that no other run has.
        colour: The number of its colour.
        dashed: Whether its curves are dashed.
        numbers: Name -> value of its figures.
        status: How far it is.
    """

    run: RunRecord
    label: str
    colour: int
    dashed: bool
    numbers: Mapping[str, str]
    status: str


def page(runs: Sequence[RunRecord]) -> str:
    """Return the page of several runs."""
    told = labels(runs)
    columns = [
        Column(run, told[i], i % run_curves.COLOURS, i >= run_curves.COLOURS, numbers(run), status(run)[1])
        for i, run in enumerate(runs)
    ]
    names = list(dict.fromkeys(name for column in columns for name in column.numbers))
    return render(
        "compare.html",
        title=f"{len(runs)} runs",
        lead=f"{listed([column.label for column in columns], most=8)}.",
        columns=columns,
        names=names,
        charts=run_curves.compared(runs, told),
        differing=differing(runs),
    )


def labels(runs: Sequence[RunRecord]) -> list[str]:
    """Return the names of the runs, or the folders of those that have one name."""
    names = [run.name for run in runs]
    return [str(run.folder) if names.count(run.name) > 1 else run.name for run in runs]


def numbers(run: RunRecord) -> dict[str, str]:
    """Return the figures of a run and its scores, by name."""
    found = {name: value for name, value, _ in figures(run)}
    for result in run_scores.results(run.folder):
        for row in result.rows:
            for name, value in row.figures:
                found[", ".join(filter(None, (result.output.replace("_", " "), row.title, name)))] = value
    return found


def differing(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Return (flag, its value in each run) of the options in which the runs differ."""
    held: list[dict[str, Any]] = [{one.name: one.value for one in settings_of(run.options, None)} for run in runs]
    flags = dict.fromkeys(name for values in held for name in values if name not in ALWAYS_DIFFER)
    rows = [(flag, [str(values.get(flag, "")) for values in held]) for flag in flags]
    return [(flag, values) for flag, values in rows if len(set(values)) > 1]
