"""The flags of tasks: one per row of the table of targets, and what shapes their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Which tasks were chosen, and how.

    Attributes:
        rows: The table that the flags come from: deepem's, and the rows of the dataset modules.
        weights: Flag -> weight of its loss; in inference 1 for each task that is on.
        channels: Flag -> number of output channels, where it was set.
        edges: The edges of the long-range task.
    """

    rows: tuple[Task, ...]
    weights: Mapping[str, float]
    channels: Mapping[str, int]
    edges: Sequence[Vec3] | None = None

    @property
    def chosen(self) -> tuple[Task, ...]:
        """The rows with a positive weight, in table order, their edges and channels filled in."""
        flags = [flag for flag, weight in self.weights.items() if weight]
        return tasks.choose(flags, self.edges or (), self.channels)


def weight_flags(rows: Sequence[Task]) -> list[Flag]:
    """The flags of training: a weight per task."""
    found = []
    for task in rows:
        found.append(Flag(task.flag, float, 0.0, task.help, read=words.non_negative, metavar="WEIGHT"))
        found += _channels_flag(task)
    return found


def switch_flags(rows: Sequence[Task]) -> list[Flag]:
    """The flags of inference: a switch per task, and for an affinity task without edges of its own their number."""
    found = []
    for task in rows:
        if task.kind == "affinity" and not task.edges:
            found.append(Flag(task.flag, int, 0, task.help, read=words.natural, metavar="N"))
        else:
            found.append(Flag(task.flag, bool, False, task.help, negatable=False))
        found += _channels_flag(task)
    return found


def _channels_flag(task: Task) -> list[Flag]:
    if not task.settable:
        return []
    told = f"output channels of --{task.flag} (default: {task.channels})"
    return [Flag(f"{task.flag}_num_channels", int | None, None, told, read=words.counting, metavar="N")]


def task_options(rows: Sequence[Task], values: Mapping[str, Any]) -> TaskOptions:
    """The chosen tasks, from the values of the flags."""
    channels = {task.flag: values.get(f"{task.flag}_num_channels") for task in rows}
    return TaskOptions(
        rows=tuple(rows),
        weights={task.flag: float(values.get(task.flag) or 0) for task in rows},
        channels={flag: count for flag, count in channels.items() if count},
        edges=[tuple(edge) for edge in values["edges"]] if values.get("edges") else None,
    )


def rows_with(datasets: Sequence[ModuleType]) -> tuple[Task, ...]:
    """Deepem's rows and those that dataset modules bring along (``tasks = (Task(...),)``).

    Raises:
        InputError: a module's row has the flag of another row.
    """
    rows = list(tasks.TASKS)
    for module in datasets:
        for row in getattr(module, "tasks", ()):
            if any(other.flag == row.flag and other != row for other in rows):
                raise InputError(f"{module.__name__}: tasks", f"a row --{row.flag}", "a flag that no other task has")
            rows += [row] if row not in rows else []
    return tuple(rows)


def add_rows_of_datasets(parser: Parser, datasets: Sequence[ModuleType]) -> None:
    """Add the weights of the tasks that dataset modules bring along."""
    own = [row for row in rows_with(datasets) if row not in tasks.TASKS]
    if own:
        parser.add_flags("tasks of the dataset", weight_flags(own))


def flat(options: Any) -> dict[str, Any]:
    """The options of a program by the names of their flags."""
    found: dict[str, Any] = {}
    for name, group in groups_of(type(options)).items():
        found |= {field.name: getattr(getattr(options, name), field.name) for field in fields(group)}  # type: ignore[arg-type]
    chosen: TaskOptions = options.tasks
    for row in chosen.rows:
        found[row.flag] = chosen.weights[row.flag]
        if row.settable:
            found[f"{row.flag}_num_channels"] = chosen.channels.get(row.flag)
    return found | {"edges": chosen.edges} | dict(options.plug_in_flags)
