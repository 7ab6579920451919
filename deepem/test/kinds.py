"""Which volumes inference writes for each kind of task.

OUTPUTS has one entry per kind of `deepem.tasks`: a function from a task's row to its volumes, by the suffix that each
adds to the output's name. The first volume has no suffix and holds the probabilities. For objects it holds the labels,
(Z, Y, X), which `deepem.test.objects` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deepem.tasks import Task, to_plain
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class Written:
    """A volume to write for an output.

    Attributes:
        task: The output's row.
        values: What it holds: ``probability``, ``class``, ``variance`` or ``label``.
        axes: Axes of the array.
        channels: Number of channels.
        dtype: Fixed data type; None for float32 or the type given on the command line.
        make: Turns the output's probabilities (C, Z, Y, X) into the array to write; None writes them unchanged.
    """

    task: Task
    values: str
    channels: int
    dtype: str | None = None
    make: Callable[[torch.Tensor], torch.Tensor] | None = None
    axes: str = "czyx"

    def attributes(self, offset: Vec3 | None = None, voxel_size_nm: Sequence[float] | None = None) -> dict[str, Any]:
        """Return the attributes that describe the volume to a reader; sizes and offsets are z, y, x.

        Args:
            offset: Position of the first voxel in the input volume; omitted for precomputed volumes, which store it.
            voxel_size_nm: Omitted where the input does not give it.
        """
        known: dict[str, Any] = {} if offset is None else {"offset": np.asarray(offset, np.int64)}
        if voxel_size_nm is not None:
            known["voxel_size_nm"] = np.asarray(voxel_size_nm, np.float64)
        return known | {
            "axes": self.axes,
            "edges": np.asarray(self.task.edges, np.int64).reshape(-1, 3),
            "tasks": [self.task.flag],
            "rows": json.dumps([to_plain(self.task)]),
            "values": self.values,
        }


def most_probable(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the most probable class, (1, Z, Y, X) uint8, of probabilities (C, Z, Y, X); ties go to the lowest."""
    found = torch.empty((1, *probabilities.shape[1:]), dtype=torch.uint8, device=probabilities.device)
    for z, section in enumerate(found[0]):  # class by class, since argmax would take eight bytes per voxel
        section.copy_(probabilities[:, z].argmax(0))
    return found


def _probabilities(task: Task) -> dict[str, Written]:
    return {"": Written(task, "probability", task.channels)}


def _with_classes(task: Task) -> dict[str, Written]:
    classes = Written(task, "class", 1, "uint8", most_probable)
    return {**_probabilities(task), "_class": classes}


def _objects(task: Task) -> dict[str, Written]:
    return {"": Written(task, "label", 1, axes="zyx")}


OUTPUTS: dict[str, Callable[[Task], dict[str, Written]]] = {
    "affinity": _probabilities,
    "binary": _probabilities,
    "semantic": _with_classes,
    "instance": _objects,
}


def written(rows: Iterable[Task]) -> dict[str, Written]:
    """Return the volumes to write for the given tasks, by name."""
    return {f"{row.name}{suffix}": one for row in rows for suffix, one in OUTPUTS[row.kind](row).items()}


def made(values: Mapping[str, torch.Tensor], volumes: Mapping[str, Written]) -> dict[str, torch.Tensor]:
    """Return the values of a scan, converted for the volumes to write."""
    return {
        **values,
        **{name: one.make(values[one.task.name]) for name, one in volumes.items() if one.make is not None},
    }
