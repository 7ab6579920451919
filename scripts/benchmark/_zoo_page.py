"""The page that `zoo.py` writes: two tables, the commands behind them, and what to choose when, drawn from them."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Rows = dict[str, dict[str, Any]]
BUDGETS = ("300 iterations", "four minutes")
EXAMPLES = (
    ("demo", "neurons and mitochondria on synthetic tissue; nothing to download"),
    ("fib25", "neurons in FIB-SEM"),
    ("cremi", "neurons and synaptic clefts in serial sections"),
    ("snemi3d", "neurons in serial sections"),
    ("nuclei", "nuclei one by one, Mask R-CNN"),
    ("mitochondria", "mitochondria and their objects"),
    ("sparse", "a few annotated boxes in a large volume"),
    ("finetune", "from a checkpoint to another data set"),
    ("scale", "one volume, many machines, a task queue"),
)
NOT_RUN = "was not run"
HEAD = """\
# Experiments

Each folder is a worked example: `exp.yaml` says everything, and a README of one screen has the commands, what comes out
and how long it takes.

| example | what it shows |
|---|---|
{examples}

# Networks

Written by `scripts/benchmark/zoo.py`, from the rows that were made so far; a cell that says "{not_run}" has no figure.
{machines}

## What they cost

Patch of one image channel and nine affinities. FLOPs (2 per multiply-add) and receptive field from shapes; memory of a
training step with one patch, float32 with Adam, from shapes. A step is forward, loss, backward and optimiser on one
patch; voxels/s are those that a prediction gives, without overlap of patches. On a CPU the times are processor time of
one thread. Group and instance norms also take means over the patch, which the receptive field leaves out.

| network | | patch z,y,x | parameters | receptive field z,y,x | MFLOP/voxel | memory, MiB | step, s | voxels/s |
|---|---|---|---|---|---|---|---|---|
{costs}

## What they give

On `fib25`: trained on z 0:100, threshold tuned on z 100:120, figures of z 120:140. Loss of the last evaluation;
average precision of cut edges (AP, higher is better); adapted Rand error of the segments (Rand, lower is better). "Four
minutes" are the iterations that fit into them by the time of a step. Mean +- deviation where there are several seeds.

| network | seeds | loss | AP | Rand | iterations | loss | AP | Rand |
|---|---|---|---|---|---|---|---|---|
| | | 300 iterations | | | four minutes | | | |
{scores}

Public benchmarks whose data is not in this repository:

| benchmark | network | scores | commands |
|---|---|---|---|
| SNEMI3D | rsunet | {not_run} here | `deepem prepare snemi3d --files img=A seg=B`, then `{run}/snemi3d/exp.yaml` |
| CREMI sample B | rsunet | {not_run} here | `deepem prepare cremi`, then `{run}/cremi/exp.yaml` |

## How to make a row again

`python scripts/benchmark/zoo.py --data_dir DATA --only NAME --out NEW`, where DATA/fib25 has `img.h5` and `seg.h5`.
What a row trains is `deepem train` with `{common}`, `--seed N --max_iter N`, and:

| network | flags |
|---|---|
{commands}

## What to choose when

{advice}
"""


def machine(device: str) -> str:
    """The processor, in a few words."""
    import torch

    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{os.cpu_count()} cores of {name}, torch {torch.__version__}"


def rows_under(out: Path, names: Iterable[str]) -> Rows:
    """Every row that has been made: shapes, times, and for each budget the figures of its seeds."""
    rows: Rows = {}
    for name in names:
        row: dict[str, Any] = {"scores": {}}
        for what in ("shapes", "times"):
            file = out / name / f"{what}.json"
            row[what] = json.loads(file.read_text()) if file.is_file() else {}
        for budget in BUDGETS:
            files = sorted((out / name).glob(f"{budget.replace(' ', '_')}_seed*.json"))
            if files:
                row["scores"][budget] = [json.loads(file.read_text()) for file in files]
        rows[name] = row
    return rows


def best_others(rows: Rows, names: Iterable[str], most: int) -> list[str]:
    """The networks with the lowest adapted Rand error after four minutes."""
    return sorted(names, key=lambda name: mean(rows[name], BUDGETS[1], "rand"))[:most]


def mean(row: Mapping[str, Any], budget: str, key: str) -> float:
    """Mean of a figure over the seeds."""
    return statistics.mean(run[key] for run in row["scores"][budget])


def spread(row: Mapping[str, Any], budget: str, key: str) -> str:
    """Mean +- deviation of a figure, or that there is none."""
    runs = [run[key] for run in row["scores"].get(budget, ())]
    if not runs:
        return NOT_RUN
    if key == "iterations":
        return f"{runs[0]:,}"
    return f"{statistics.mean(runs):.3f}" + (f" +- {statistics.stdev(runs):.3f}" if len(runs) > 1 else "")


FORMATS: dict[str, str] = {
    **{"patch": "{}", "parameters": "{:,}", "field": "{}", "mflop": "{:.3f}", "memory": "{:,}"},
    **{"step": "{:.2f}", "voxels_per_s": "{:,.0f}"},
}
"""Figure of the first table -> how it is written, in the order of the columns."""


def cost_line(name: str, about: str, row: Mapping[str, Any]) -> str:
    """A row of the first table."""
    cost = {**row["shapes"], **row["times"]}
    cells = [form.format(cost[key]) if key in cost else NOT_RUN for key, form in FORMATS.items()]
    return f"| {name} | {about} | {' | '.join(cells)} |"


def score_line(name: str, row: Mapping[str, Any]) -> str:
    """A row of the second table."""
    seeds = max((len(runs) for runs in row["scores"].values()), default=0)
    cells = [spread(row, BUDGETS[0], key) for key in ("loss", "ap", "rand")]
    cells += [spread(row, BUDGETS[1], key) for key in ("iterations", "loss", "ap", "rand")]
    return f"| {name} | {seeds} | {' | '.join(cells)} |"


def advice(rows: Rows) -> str:
    """What the tables say about choosing, and no more."""
    lines = [
        *choice(
            rows, "shapes", "Little memory in training", "KiB a voxel of output", lambda r: 1024 * per(r, "memory")
        ),
        *choice(rows, "shapes", "Few operations", "MFLOP a voxel of output", lambda r: r["shapes"]["mflop"]),
        *choice(
            rows, "times", "Little time to train", "microseconds a voxel of output", lambda r: 1e6 * per(r, "step")
        ),
        *choice(
            rows, "times", "Many voxels to predict", "seconds a megavoxel", lambda r: 1e6 / r["times"]["voxels_per_s"]
        ),
        *context(rows),
    ]
    for budget in BUDGETS:
        done = {name: row for name, row in rows.items() if budget in row["scores"]}
        if len(done) < len(rows):
            missing = len(rows) - len(done)
            lines.append(f"- Best scores, {budget}: {missing} of {len(rows)} networks were not run, so none is named.")
        else:
            order = sorted(done, key=lambda name: mean(done[name], budget, "rand"))
            shown = ", ".join(f"{n} ({spread(done[n], budget, 'rand')})" for n in order[:3])
            lines.append(f"- Lowest adapted Rand error, {budget}: {shown}. Differences within the spread say nothing.")
    return "\n".join(lines)


def choice(rows: Rows, what: str, title: str, unit: str, of: Callable[[Mapping[str, Any]], float]) -> list[str]:
    """A line with the three networks that need least of something."""
    there = {name: of(row) for name, row in rows.items() if row[what] and row["shapes"]}
    if len(there) < 3:
        return [f"- {title}: {len(rows) - len(there)} of {len(rows)} networks were not run, so none is named."]
    best = sorted(there, key=lambda name: there[name])[:3]
    shown = ", ".join(f"{name} {there[name]:.3g}" for name in best)
    but = f" ({len(rows) - len(there)} were not run)" if len(there) < len(rows) else ""
    usual = f"; rsunet {there['rsunet']:.3g}" if "rsunet" in there and "rsunet" not in best else ""
    return [f"- {title}: {shown}{usual} {unit}{but}."]


def per(row: Mapping[str, Any], key: str) -> float:
    """A cost of a training step per voxel of the output."""
    return float({**row["shapes"], **row["times"]}[key]) / voxels(row["shapes"])


def context(rows: Rows) -> list[str]:
    """A line about the widest receptive fields."""
    fields = {name: row["shapes"]["field"] for name, row in rows.items() if row["shapes"]}
    whole = [name for name, field in fields.items() if "whole" in field]
    sizes = {name: math.prod(map(int, field.split(","))) for name, field in fields.items() if name not in whole}
    if not sizes:
        return []
    widest = max(sizes, key=lambda name: sizes[name])
    also = f"; {', '.join(whole)} attend to the whole patch" if whole else ""
    return [f"- Wide context: {widest} sees {fields[widest]} voxels{also}."]


def voxels(cost: Mapping[str, Any]) -> int:
    """Voxels of a patch's output."""
    z, y, x = map(int, cost["patch"].split(" -> ")[-1].split(" ")[0].split(","))
    return z * y * x


def text(rows: Rows, about: Mapping[str, str], words: Mapping[str, str], common: str) -> str:
    """The whole page."""
    made = [row["times"]["machine"] for row in rows.values() if row["times"]]
    made += [run["machine"] for row in rows.values() for runs in row["scores"].values() for run in runs]
    machines = f"Machine: {'; '.join(dict.fromkeys(made))}." if made else "No row has been made."
    return HEAD.format(
        examples="\n".join(f"| [{name}]({name}/README.md) | {line} |" for name, line in EXAMPLES),
        machines=machines,
        not_run=NOT_RUN,
        costs="\n".join(cost_line(name, about[name], row) for name, row in rows.items()),
        scores="\n".join(score_line(name, row) for name, row in rows.items()),
        commands="\n".join(f"| {name} | `{line}` |" for name, line in words.items()),
        common=common,
        run="deepem run experiments",
        advice=advice(rows),
    )
