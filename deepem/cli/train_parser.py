"""Parses the command line of `deepem train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepem import tasks
from deepem.cli import argfile, config_text, plugins
from deepem.cli.flags import Flag, filled, groups_of
from deepem.cli.network_options import DEFAULT_FOV
from deepem.cli.parser import Given, Parser
from deepem.cli.task_flags import EDGES, TaskOptions, add_rows_of_datasets, rows_with, task_options, weight_flags
from deepem.cli.training import TrainOptions
from deepem.cli.words import ALL
from deepem.utils.errors import InputError

SHORT_TRIAL = {"eval_intv": 100, "eval_iter": 10, "avgs_intv": 10, "imgs_intv": 100}
"""Upper limits that --test sets."""


def parser() -> Parser:
    """Create the parser of training, without the flags of plug-ins."""
    made = Parser(
        "run.py",
        "Train a multi-task network on volume electron microscopy.",
        "run.py --data synthetic --aff 1.0 --mit 0.5     (--help with modules named also lists their flags)",
    )
    groups = groups_of(TrainOptions)
    made.add_group(groups.pop("data"))
    made.add_flags("tasks", [*weight_flags(tasks.TASKS), EDGES])
    for group in groups.values():
        made.add_group(group)
    return made


def parse(words: Sequence[str] | None = None) -> TrainOptions:
    """Read the command line of training.

    Raises:
        InputError: bad input.
        SystemExit: after --help.
    """
    reader = parser()
    given = reader.read(words, _require_data, add_rows_of_datasets)
    return options_of(given, reader.flags)


def options_of(given: Given, flags: Mapping[str, Flag]) -> TrainOptions:
    """Create the options of a run from its parsed command line."""
    rows = rows_with([module for kind, _, module in given.modules if kind == "dataset"])
    chosen = task_options(rows, given.values)
    values = _completed(given.values, chosen)
    groups: dict[str, Any] = {name: filled(group, values) for name, group in groups_of(TrainOptions).items()}
    lines = tuple(argfile.in_words(values, flags))
    settings = config_text.as_yaml(values, flags)
    return TrainOptions(
        tasks=chosen, plug_in_flags=given.plug_in_flags, typed=given.typed, lines=lines, settings=settings, **groups
    )


def _require_data(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not values["data"]:
        there = ", ".join(plugins.siblings("dataset"))
        raise InputError("--data", "nothing", f"a dataset module: one of {there}, or a file")
    return {}


def _completed(values: Mapping[str, Any], chosen: TaskOptions) -> dict[str, Any]:
    """Fill in defaults that depend on other values."""
    done = dict(values)
    names = [plugins.short_name(name) for name in done["data"]]
    done["exp_name"] = done["exp_name"] or "_".join(names + [task.flag for task in chosen.chosen])
    done["fov"] = done["fov"] or DEFAULT_FOV
    done["inputsz"] = done["inputsz"] or done["fov"]
    if done["lr_schedule"] in ("cosine", "poly"):
        done["lr_until"] = done["lr_until"] or done["max_iter"]
    if done["lr_schedule"] == "step" and not done["lr_steps"]:
        raise InputError("--lr_schedule", "step without --lr_steps", "the steps at which the rate falls")
    for name in ("loss", "margin0", "margin1", "class_balancing"):
        known = {task.flag for task in chosen.chosen}
        if isinstance(done[name], Mapping) and (other := [flag for flag in done[name] if flag not in {ALL, *known}]):
            raise InputError(f"--{name}", other[0], f"chosen tasks: {', '.join(sorted(known))}")
    if done["test"]:
        done |= {name: min(value, done[name]) for name, value in SHORT_TRIAL.items()}
    return done
