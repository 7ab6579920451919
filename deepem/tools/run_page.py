"""Puts what is known of a run on one HTML page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from deepem.runs.series import Series
from deepem.tools import run_curves, run_outputs, run_scores
from deepem.tools.charts import drawable, reading
from deepem.tools.page_text import duration, in_time, listed, neat, render, words
from deepem.tools.run_record import RunRecord
from deepem.tools.run_settings import Setting, given_flags, names, settings_of, text

FACTS = {
    "data": "dataset", "augment": "augmentation", "model": "network", "backbone": "backbone", "fov": "field of view",
    "outputsz": "output patch", "batch_size": "samples per step", "optim": "optimiser", "lr": "learning rate",
    "lr_schedule": "schedule", "pretrain": "weights to start from",
}  # fmt: skip
"""Options to name beside the tasks."""

ENVIRONMENT = {"version": "deepem", "commit": "commit", "torch": "torch", "python": "Python", "host": "host"}
"""Entries of a checkpoint's provenance to name."""

MOST_STARTS = 10


def page(run: RunRecord) -> str:
    """Return the page of a run."""
    known = settings_of(run.options, given_flags(run.folder / "options.args"))
    written = list(run_outputs.outputs(run.folder))
    samples = [(one, picture) for one in run.pictures if (picture := run_outputs.inlined(one.png)) is not None]
    return render(
        "run.html",
        run=run,
        lead=lead(run),
        status=status(run),
        figures=list(figures(run)),
        losses=run_curves.losses(run),
        pace=run_curves.pace(run),
        scored=run_curves.scored(run),
        samples={phase: [s for s in samples if s[0].tag.startswith(f"{phase}/")] for phase in ("test", "train")},
        own_pictures=list(run_outputs.pictures(run.folder)),
        results=list(run_scores.results(run.folder)),
        outputs=written,
        given=[one for one in known if one.differs and not one.filled_in],
        filled_in=[one for one in known if one.filled_in],
        groups=_grouped(known),
        volumes=list(volumes(run)),
        facts=list(facts(run)),
        environment=list(environment(run)),
        commands=commands(run, written),
    )


def lead(run: RunRecord) -> str:
    """Return what was trained on what, as a sentence."""
    tasks = listed([words(task.name) for task in run.tasks]) or "unknown tasks"
    data = listed([re.split(r"[./]", name.removesuffix(".py"))[-1] for name in names(run.options.get("data"))])
    trained, tested = (listed(names(run.options.get(name))) for name in ("train_ids", "val_ids"))
    sentence = f"{tasks[:1].upper()}{tasks[1:]}{f' from {data}' if data else ''}"
    ids = [f"trained on {trained}"] * bool(trained) + [f"evaluated on {tested}"] * bool(tested)
    return f"{': '.join(filter(None, (sentence, ', '.join(ids))))}."


def status(run: RunRecord) -> tuple[str, str]:
    """Return how far the run is: ``done`` or ``open``, and a sentence."""
    at, whole = run.iteration, run.max_iter
    when = f"; last row written {in_time(run.written)}" if run.written else ""
    if whole is not None and at >= whole:
        return "done", f"Complete: {at:,} of {whole:,} iterations{when}."
    return "open", f"At iteration {at:,}{f' of {whole:,}' if whole is not None else ''}{when}."


def figures(run: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, note) of the few numbers that say most."""
    loss = run.log.phase("test").get(run_curves.SUM)
    if loss is not None and len(loss.values):
        best = int(loss.values.argmin())
        yield "best test loss", reading(float(loss.values[best])), f"at iteration {int(loss.iterations[best]):,}"
        yield "last test loss", reading(float(loss.values[-1])), f"at iteration {int(loss.iterations[-1]):,}"
    if run.parameters:
        size = f"{run.parameters / 1e6:.4g} M" if run.parameters >= 1e6 else f"{run.parameters:,}"
        yield "parameters", size, str(run.options.get("model", ""))
    yield from speeds(run)


def speeds(run: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, note) of throughput, waiting for data, and the time that all steps took."""
    train = run.log.phase("train")
    speed, waits = train.get("it_per_s"), train.get("data_wait")
    if speed is None or not len(speed.values):
        return
    seconds = float((_steps(speed) / speed.values.clip(1e-9)).sum())
    yield "throughput", f"{reading(median(speed.values.tolist()))} it/s", "median"
    if waits is not None and np.array_equal(waits.iterations, speed.iterations):
        share = float((drawable(waits.values) * _steps(waits)).sum()) / max(seconds, 1e-9)
        yield "waiting for data", f"{min(max(share, 0), 1):.1%}", "of the time"
    yield "time in steps", duration(seconds), "without evaluations"


def _steps(series: Series) -> Any:
    """Return how many steps each row of training averages."""
    return np.diff(series.iterations, prepend=0)


def volumes(run: RunRecord) -> Iterator[tuple[str, str, str, str]]:
    """Yield (id, use, share of the samples that was asked for, share drawn) of the volumes of a run."""
    train = run.log.phase("train")

    def share(kind: str, name: str) -> str:
        series = train.get(f"{kind}/{name}")
        return f"{series.values[-1]:.1%}" if series is not None and len(series.values) else ""

    for name in names(run.options.get("train_ids")):
        yield name, "train", share("asked", name), share("drawn", name)
    for name in names(run.options.get("val_ids")):
        yield name, "test", "", ""


def facts(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of what the network is and how it was trained."""
    for name, told in FACTS.items():
        if run.options.get(name) not in (None, "", []):
            yield told, text(run.options[name])
    if run.checkpoints:
        best = f"; best: {run.best}" if run.best is not None else ""
        yield "checkpoints", f"{listed([str(n) for n in run.checkpoints[::-1]])}{best}"


def environment(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of where and with what the newest checkpoint was made."""
    made = run.provenance
    for name, told in ENVIRONMENT.items():
        if made.get(name):
            yield told, f"{made[name]}{', with changed files' if name == 'commit' and made.get('changed') else ''}"
    seed = made.get("seed", run.options.get("seed"))
    if seed is not None:
        yield "seed", text(seed)
    if (more := len(run.starts) - MOST_STARTS) > 0:
        yield "starts", f"{more} earlier ones, and"
    for i, (when, host) in enumerate(run.starts[-MOST_STARTS:]):
        yield "" if i or more > 0 else "starts", f"{in_time(when)} on {host}"
    yield "folder", str(run.folder.resolve())


def commands(run: RunRecord, written: Sequence[run_outputs.Output]) -> list[tuple[str, str]]:
    """Return (what it does, command): what repeats the run, what was typed, and what made its volumes."""
    found = []
    if (run.folder / "options.yaml").is_file():
        again = ["deepem", "train", "--config", str(run.folder / "options.yaml"), "--exp_name", f"{run.name}_again"]
        found.append(("the same run under another name", shlex.join(again)))
    made = [str(one.made.get("command") or one.source) for one in written]
    typed = dict.fromkeys(neat(line) for line in made if line)
    if run.provenance.get("command"):
        found.append(("as it was called", neat(str(run.provenance["command"]))))
    return [*found, *(("then" if i else "what made the volumes", line) for i, line in enumerate(typed))]


def _grouped(known: Sequence[Setting]) -> Mapping[str, list[Setting]]:
    groups: dict[str, list[Setting]] = {}
    for one in known:
        groups.setdefault(one.group, []).append(one)
    return groups
