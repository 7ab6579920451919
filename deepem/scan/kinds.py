"""The behaviour of each kind of task in a scan: how logits become probabilities, and which edges channels have.

KINDS has one entry per kind of `deepem.tasks`. An entry must define all of these; there are no defaults::

    activate        (logits (N, C, Z, Y, X), temperature, out float32 of the same shape) -> out, filled with the
                    probabilities of logits / temperature. Blending and averaging over flips happen after this.
                    None if the output is a list of objects rather than a volume.
    probabilities   logits -> probabilities in a new tensor, without temperature; used by exported programs
    edges           row -> the edge of each channel, or None if a value belongs to a single voxel. Values with an edge
                    shift under a flip, and the planes of a patch without partners can be excluded from the blend.
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
    """An entry of KINDS; see the module docstring."""

    activate: Activate | None
    probabilities: Callable[[Tensor], Tensor] | None
    edges: Callable[[Task], tuple[Vec3, ...] | None]


def sigmoid(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """Sigmoid: each channel is independent."""
    if logits.dtype == out.dtype and temperature == 1:
        return torch.sigmoid(logits, out=out)
    return out.copy_(logits).div_(temperature).sigmoid_()


def softmax(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """Softmax: channels are mutually exclusive and sum to 1."""
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
    """Whether an output is a volume, whose patches are blended, rather than a list of objects."""
    return KINDS[row.kind].activate is not None


def activations(rows: Iterable[Task]) -> dict[str, Activate]:
    """Return the activation of each output, which maps logits to probabilities."""
    found = {row.name: KINDS[row.kind].activate for row in rows}
    return {name: activate for name, activate in found.items() if activate is not None}


def edges_by_output(rows: Iterable[Task]) -> dict[str, tuple[Vec3, ...]]:
    """Return the edges of each output that has edges."""
    found = {row.name: KINDS[row.kind].edges(row) for row in rows}
    return {name: edges for name, edges in found.items() if edges is not None}
