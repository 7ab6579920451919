"""The charts of a run, and those of several runs together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deepem.runs.series import Series
from deepem.tools.charts import Chart, Curve, chart
from deepem.tools.page_text import words
from deepem.tools.run_record import RunRecord

PACE = {
    "lr": ("learning rate", ""),
    "it_per_s": ("throughput", "steps per second"),
    "data_wait": ("waiting for data", "seconds per step"),
    "grad_norm": ("gradient norm", ""),
}
"""Name in a row of training -> title and unit of its chart. The other names are losses, or have a slash."""
FROM_ZERO = ("lr", "it_per_s", "data_wait")

SCORES = {
    "arand": ("adapted Rand error", ""), "voi": ("VOI", "bits"), "voi_split": ("VOI split", "bits"),
    "voi_merge": ("VOI merge", "bits"), "f1": ("F1", ""), "auc": ("ROC AUC", ""), "iou": ("IoU", ""),
    "accuracy": ("accuracy", ""), "ap": ("AP", ""), "pq": ("panoptic quality", ""), "threshold": ("threshold", ""),
}  # fmt: skip
"""Name of a score of a whole volume -> title and unit of its chart."""

SUM = "loss"
"""Name of the weighted sum of the losses of an evaluation."""

COLOURS = 8
TRAIN, TEST, WHOLE = 0, 1, 2
"""Colours of the phases."""


def losses(run: RunRecord) -> list[Chart]:
    """Return a chart of the losses of training and evaluation for each output, the weighted sum last."""
    train, test = _losses(run, "train"), _losses(run, "test")
    made = []
    for name in in_order(run, {*train, *test}):
        curves = [Curve("train", train[name], TRAIN)] if name in train else []
        curves += [Curve("test", test[name], TEST, dots=True)] if name in test else []
        made.append(chart(title(name), "loss", curves, run.log.last))
    return _there(made)


def pace(run: RunRecord) -> list[Chart]:
    """Return charts of learning rate, throughput, waiting for data and gradient norm."""
    train = run.log.phase("train")
    return _there(
        chart(told, unit, [Curve("train", train[name], TRAIN)], run.log.last, from_zero=name in FROM_ZERO)
        for name, (told, unit) in PACE.items()
        if name in train
    )


def scored(run: RunRecord) -> list[Chart]:
    """Return a chart for each score of whole volumes during training."""
    made = []
    for name, series in run.log.phase("segment").items():
        told, unit = score_title(name)
        made.append(chart(told, unit, [Curve("whole volume", series, WHOLE, dots=True)], run.log.last))
    return _there(made)


def compared(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[Chart]:
    """Return charts with a curve per run: evaluation losses, else training losses, and scores of whole volumes."""
    until = max(run.log.last for run in runs)
    made = []
    for name in in_order(
        runs[0], {name for run in runs for phase in ("train", "test") for name in _losses(run, phase)}
    ):
        phase = "test" if any(name in _losses(run, "test") for run in runs) else "train"
        curves = _overlaid(labels, [_losses(run, phase).get(name) for run in runs], dots=phase == "test")
        made.append(chart(title(name), f"{phase} loss", curves, until))
    for name in dict.fromkeys(name for run in runs for name in run.log.phase("segment")):
        told, unit = score_title(name)
        curves = _overlaid(labels, [run.log.phase("segment").get(name) for run in runs], dots=True)
        made.append(chart(told, unit, curves, until))
    return _there(made)


def _overlaid(labels: Sequence[str], series: Sequence[Series | None], *, dots: bool) -> list[Curve]:
    return [
        Curve(label, one, i % COLOURS, dots=dots, dashed=i >= COLOURS)
        for i, (label, one) in enumerate(zip(labels, series, strict=True))
        if one is not None
    ]


def _losses(run: RunRecord, phase: str) -> dict[str, Series]:
    return {name: one for name, one in run.log.phase(phase).items() if name not in PACE and "/" not in name}


def in_order(run: RunRecord, names: set[str]) -> list[str]:
    """Return names of losses in the order of the tasks, then others, then the sum."""
    tasks = [task.name for task in run.tasks]
    return sorted(names, key=lambda name: (name == SUM, tasks.index(name) if name in tasks else len(tasks), name))


def title(name: str) -> str:
    """Return the title of the chart of a loss."""
    return "weighted sum" if name == SUM else words(name)


def score_title(name: str) -> tuple[str, str]:
    """Return title and unit of the chart of a score, named OUTPUT/SCORE."""
    output, _, score = name.rpartition("/")
    told, unit = SCORES.get(score, (words(score), ""))
    return f"{words(output)} {told}".strip(), unit


def _there(charts: Iterable[Chart | None]) -> list[Chart]:
    return [one for one in charts if one is not None]
