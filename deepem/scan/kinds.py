"""What the kinds of tasks mean for a scan: from logits to probabilities, and how flips and edges act on them.

KINDS has one entry per kind of `deepem.tasks`. An entry says all of this; nothing has a default::

    activate        (logits (N, C, Z, Y, X), temperature, out float32 of the same shape) -> out, filled with the
                    probabilities of logits / temperature. Patches are blended, and flips averaged, after this.
                    None where the output is no volume but a list of objects.
    probabilities   the same of logits alone, in a tensor of its own: for exported programs
    edges           row -> the edge of each channel, or None where a value belongs to its voxel alone. Along an edge a
                    value moves under a flip, and planes of a patch without a partner may be left out of the blend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepem.tasks import Task
from deepem.utils.geometry import Vec3

Activate = Callable[[Tensor, float, Tensor], Tensor]


@dataclass(frozen=True)
class Kind:
    """An entry; see the module."""

    activate: Activate | None
    probabilities: Callable[[Tensor], Tensor] | None
    edges: Callable[[Task], tuple[Vec3, ...] | None]


def sigmoid(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """Each channel on its own."""
    if logits.dtype == out.dtype and temperature == 1:
        return torch.sigmoid(logits, out=out)
    return out.copy_(logits).div_(temperature).sigmoid_()


def softmax(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """Channels that exclude each other: their sum is 1."""
    logits = logits.to(out.dtype)
    return torch.softmax(logits if temperature == 1 else logits / temperature, 1, out=out)


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, 1)


def _own(task: Task) -> tuple[Vec3, ...] | None:
    return task.edges


def _none(task: Task) -> tuple[Vec3, ...] | None:
    return None


KINDS: dict[str, Kind] = {
    "affinity": Kind(activate=sigmoid, probabilities=torch.sigmoid, edges=_own),
    "binary": Kind(activate=sigmoid, probabilities=torch.sigmoid, edges=_none),
    "semantic": Kind(activate=softmax, probabilities=_softmax, edges=_none),
    "instance": Kind(activate=None, probabilities=None, edges=_none),
}


def is_dense(row: Task) -> bool:
    """Whether an output has a value at every voxel, so that patches are blended; else it is a list of objects."""
    return KINDS[row.kind].activate is not None


def activations(rows: Iterable[Task]) -> dict[str, Activate]:
    """From logits to probabilities, by output."""
    found = {row.name: KINDS[row.kind].activate for row in rows}
    return {name: activate for name, activate in found.items() if activate is not None}


def edges_by_output(rows: Iterable[Task]) -> dict[str, tuple[Vec3, ...]]:
    """The edges of the outputs that have any, by output."""
    found = {row.name: KINDS[row.kind].edges(row) for row in rows}
    return {name: edges for name, edges in found.items() if edges is not None}
