"""What the kinds of tasks mean for inference: which volumes are written of an output.

OUTPUTS has one entry per kind of `deepem.tasks`: row -> the volumes, by what is added to the output's name. The first,
under the name itself, holds the probabilities. Of objects it is the volume of their labels, (Z, Y, X), which
`deepem.test.objects` writes.
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
    """A volume that is written of an output.

    Attributes:
        task: The output's row.
        values: What it holds: ``probability``, ``class``, ``variance`` or ``label``.
        axes: Of the array.
        channels: Number of channels.
        dtype: Type that it has in any case; None: float32, or as the command line says.
        make: From the output's probabilities (C, Z, Y, X) to what is written; None: themselves.
    """

    task: Task
    values: str
    channels: int
    dtype: str | None = None
    make: Callable[[torch.Tensor], torch.Tensor] | None = None
    axes: str = "czyx"

    def attributes(self, offset: Vec3 | None = None, voxel_size_nm: Sequence[float] | None = None) -> dict[str, Any]:
        """What tells a reader what this is; sizes and offsets are z, y, x.

        Args:
            offset: Of the first voxel in the input volume; left out of precomputed volumes, whose layout says it.
            voxel_size_nm: Left out where the input does not say.
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
    """The class of each voxel, (1, Z, Y, X) uint8, of probabilities (C, Z, Y, X); the lowest of equal ones."""
    found = torch.empty((1, *probabilities.shape[1:]), dtype=torch.uint8, device=probabilities.device)
    for z, section in enumerate(found[0]):  # one after the other: argmax makes eight bytes of each voxel
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
    """The volumes that are written of the rows' outputs, by name."""
    return {f"{row.name}{suffix}": one for row in rows for suffix, one in OUTPUTS[row.kind](row).items()}


def made(values: Mapping[str, torch.Tensor], volumes: Mapping[str, Written]) -> dict[str, torch.Tensor]:
    """The values of a scan, and what is made of them."""
    return {
        **values,
        **{name: one.make(values[one.task.name]) for name, one in volumes.items() if one.make is not None},
    }
