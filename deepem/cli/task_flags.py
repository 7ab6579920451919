"""The flags of tasks: one per row of the task table, and those that set channels, classes and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from deepem import tasks
from deepem.cli import words
from deepem.cli.flags import Flag, groups_of
from deepem.cli.parser import Parser
from deepem.tasks import Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

EDGES = Flag("edges", list[Vec3] | None, None, "the edges of --long", read=words.edge, metavar="Z,Y,X", many="*")


@dataclass(frozen=True)
class TaskOptions:
    """The chosen tasks and their settings.

    Attributes:
        rows: The table that the flags come from: deepem's rows, and those of the dataset modules.
        weights: Flag -> weight of the loss; in inference, 1 for each task that is on.
        channels: Flag -> number of output channels or classes, if set.
        class_weights: Flag -> weight of each class in the loss, if set.
        edges: The edges of the long-range task.
    """

    rows: tuple[Task, ...]
    weights: Mapping[str, float]
    channels: Mapping[str, int]
    class_weights: Mapping[str, Sequence[float]]
    edges: Sequence[Vec3] | None = None

    @property
    def chosen(self) -> tuple[Task, ...]:
        """The rows with a positive weight, in table order, with edges and channels filled in."""
        flags = [flag for flag, weight in self.weights.items() if weight]
        return tasks.choose(flags, self.edges or (), self.channels, self.class_weights, self.rows)


def weight_flags(rows: Sequence[Task]) -> list[Flag]:
    """Return the task flags of training: a weight per task."""
    found = []
    for task in rows:
        found.append(Flag(task.flag, float, 0.0, task.help, read=words.non_negative, metavar="WEIGHT"))
        found += _shape_flags(task)
    return found


def switch_flags(rows: Sequence[Task]) -> list[Flag]:
    """Return the task flags of inference: a switch per task, or the number of edges for --long and similar tasks."""
    found = []
    for task in rows:
        if task.along_edges:
            found.append(Flag(task.flag, int, 0, task.help, read=words.natural, metavar="N"))
        else:
            found.append(Flag(task.flag, bool, False, task.help, negatable=False))
        found += _shape_flags(task)
    return found


def _shape_flags(task: Task) -> list[Flag]:
    """Return the flags that set the number of channels or classes of a task, and its class weights."""
    found = []
    if task.settable:
        counted = "output channels" if task.channels_flag.endswith("num_channels") else "classes"
        told = f"{counted} of --{task.flag}" + (f" (default: {task.channels})" if task.channels else "")
        found.append(Flag(task.channels_flag, int | None, None, told, read=words.counting, metavar="N"))
    if task.weights_flag:
        told = f"weight of each class of --{task.flag} in the loss (default: 1 each)"
        weights = list[float] | None
        found.append(Flag(task.weights_flag, weights, None, told, read=words.non_negative, metavar="WEIGHT", many="*"))
    return found


def task_options(rows: Sequence[Task], values: Mapping[str, Any]) -> TaskOptions:
    """Create the task options from the values of the flags."""
    channels = {task.flag: values.get(task.channels_flag) for task in rows}
    weights = {task.flag: values.get(task.weights_flag) for task in rows if task.weights_flag}
    return TaskOptions(
        rows=tuple(rows),
        weights={task.flag: float(values.get(task.flag) or 0) for task in rows},
        channels={flag: count for flag, count in channels.items() if count},
        class_weights={flag: given for flag, given in weights.items() if given},
        edges=[tuple(edge) for edge in values["edges"]] if values.get("edges") else None,
    )


def rows_with(datasets: Sequence[ModuleType]) -> tuple[Task, ...]:
    """Return deepem's rows and those that dataset modules bring along (``tasks = (Task(...),)``).

    Raises:
        InputError: a row contradicts itself, or two different rows have the same flag.
    """
    for module in datasets:
        if not isinstance(own := getattr(module, "tasks", ()), Iterable):
            raise InputError(f"{module.__file__}: tasks", f"a {type(own).__name__}", "(Task(...),), rows of tasks")
    return tasks.table(row for module in datasets for row in getattr(module, "tasks", ()))


def stored_rows(state: Mapping[str, Any]) -> tuple[Task, ...]:
    """Return deepem's rows and those that a checkpoint or another file stores as plain values."""
    return tasks.table(state.get("tasks", ()))


def add_rows_of_datasets(parser: Parser, datasets: Sequence[ModuleType]) -> None:
    """Add the weight flags of tasks that dataset modules bring along."""
    own = [row for row in rows_with(datasets) if row not in tasks.TASKS]
    if own:
        parser.add_flags("tasks of the dataset", weight_flags(own))


def flat(options: Any) -> dict[str, Any]:
    """Return a program's options by the names of their flags."""
    found: dict[str, Any] = {}
    for name, group in groups_of(type(options)).items():
        found |= {field.name: getattr(getattr(options, name), field.name) for field in fields(group)}  # type: ignore[arg-type]
    chosen: TaskOptions = options.tasks
    for row in chosen.rows:
        found[row.flag] = chosen.weights[row.flag]
        if row.settable:
            found[row.channels_flag] = chosen.channels.get(row.flag)
        if row.weights_flag:
            found[row.weights_flag] = chosen.class_weights.get(row.flag)
    return found | {"edges": chosen.edges} | dict(options.plug_in_flags)
