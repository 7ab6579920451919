"""Functions that turn the label of a patch into a target; `deepem.data.kinds` assigns them to the kinds of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.drawn import Drawn, pieces
from deepem.data.scan import meetings
from deepem.data.transform.base import owned
from deepem.tasks import Task
from deepem.utils.contiguous import contiguous, turned
from deepem.utils.errors import InputError

Array = NDArray[Any]

TOUCHING = 4
"""Instances touch without a gap if they border each other more than this many times as often as they border 0."""


def check_channels(where: str, task: Task, channels: int, label: Array | Drawn) -> None:
    """Check that a label has one channel, or as many channels as the output.

    Raises:
        InputError: It has another number of channels.
    """
    if label.shape[0] not in (1, channels):
        wants = "1" if channels == 1 else f"1 or {channels}, one per channel"
        raise InputError(f"{where} {task.source}", f"{label.shape[0]} volumes", wants)


def check_classes(where: str, task: Task, most: int, label: Array | Drawn, mask: Array | Drawn | None) -> None:
    """Check that every class within the mask has a channel; without a mask, check all voxels.

    Raises:
        InputError: The output has no channel for a class.
    """
    found = int(label.max())
    if found > most and mask is not None:
        found = max(int(part.max(initial=0, where=counts > 0)) for part, counts in pieces(label, mask))
    if found > most:
        wants = f"classes from 0 to {most}, as the output {task.name} has, or a mask over the others"
        raise InputError(f"{where} {task.source}", f"the class {found}", wants)


def ids(label: Array, dtype: Any, out: Array | None = None) -> Array:
    """Return the label's numbers unchanged, (1, Z, Y, X), in a dtype that holds them; written into `out` if given."""
    if out is None and label.dtype != dtype:
        out = np.empty(label.shape, dtype)
    return owned(contiguous(label, out))


def of_one_channel(label: Array) -> Array:
    """Merge ids with one channel per class (C, Z, Y, X) into one channel (1, Z, Y, X), by the maximum per voxel."""
    return label if len(label) == 1 else label.max(0, keepdims=True)


def soft(label: Array, channels: int, out: Array | None = None) -> Array:
    """Return a target in [0, 1], (channels, Z, Y, X) float32: a soft label as it is, other labels as in `binary`."""
    if label.dtype == np.float32:
        return owned(contiguous(label, out))
    out = np.empty((channels, *label.shape[1:]), np.float32) if out is None else out
    out[...] = binary(label, channels)
    return out


def binary(label: Array, channels: int, out: Array | None = None) -> Array:
    """Return 0 or 1 per voxel, (channels, Z, Y, X) uint8, from class labels (1 or channels, Z, Y, X).

    A single channel is label > 0. Of several channels, channel i is label == i + 1; if the label has one channel per
    class, it is label[i] > 0. Written into `out` if given.
    """
    out = np.empty((channels, *label.shape[1:]), np.uint8) if out is None else out
    label, flags = contiguous(label) if turned(label) else label, out.view(np.bool_)
    if label.shape[0] == channels:
        np.greater(label, 0, out=flags)
    else:
        for i, channel in enumerate(flags):
            np.equal(label[0], i + 1, out=channel)
    return out


def boundary(seg: Array, touching: bool, out: Array | None = None, partly: bool = False) -> Array:
    """Return 1 at boundaries between cells, (1, Z, Y, X) uint8, from instance ids (1, Z, Y, X).

    Boundaries are the voxels of the gap between instances, seg == 0. If instances touch without a gap (`touching`),
    boundaries also include both voxels of every pair of neighbours in y or x with different ids. Such a boundary is
    two voxels wide::

        ids        1 1 1 2 2 2 0 0 3
        boundary   0 0 1 1 0 1 1 1 1

    Neighbours in z do not count: a neurite that shifts between two thick sections has no membrane there. Neighbours
    outside the patch do not count either, nor, with `partly`, neighbours of id -1 (unknown). Written into `out` if
    given.
    """
    out = np.empty(seg.shape, np.uint8) if out is None else out
    seg, edge = contiguous(seg), out.view(np.bool_)
    np.equal(seg, 0, out=edge)
    if touching:
        for axis in (2, 3):
            size = seg.shape[axis]
            low: Any = (slice(None),) * axis + (slice(0, size - 1),)
            high: Any = (slice(None),) * axis + (slice(1, size),)
            differ = seg[low] != seg[high]
            if partly:
                differ &= (seg[low] >= 0) & (seg[high] >= 0)
            edge[low] |= differ
            edge[high] |= differ
    return out


def instances_touch(seg: Array | Drawn) -> bool:
    """Whether instances (1, Z, Y, X) touch without a gap of 0 between them, judged by all neighbours in x.

    With a gap, instances border 0 and hardly ever each other. A few unlabelled voxels, an unlabelled rim, or voxels of
    id -1 do not count as a gap.
    """
    touch, gap = contacts(seg)
    return touch > TOUCHING * gap


def contacts(seg: Array | Drawn) -> tuple[int, int]:
    """Count the neighbours in x at which instances (1, Z, Y, X) border each other, and those at which they border 0."""
    if isinstance(seg, Drawn):
        return seg.facts.touch, seg.facts.gap
    touch, gap = (sum(counts) for counts in zip(*map(meetings, seg[0]), strict=True))
    return touch, gap
