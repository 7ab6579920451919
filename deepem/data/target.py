"""From the label of a patch to the target of an output. Which kind of task has which stands in `deepem.data.kinds`."""

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
"""A segmentation has no gap where instances meet each other this many times as often as they meet 0."""


def check_channels(where: str, task: Task, channels: int, label: Array | Drawn) -> None:
    """Refuse a label that has neither one volume nor one for each channel.

    Raises:
        InputError: another number of volumes.
    """
    if label.shape[0] not in (1, channels):
        wants = "1" if channels == 1 else f"1 or {channels}, one per channel"
        raise InputError(f"{where} {task.source}", f"{label.shape[0]} volumes", wants)


def check_classes(where: str, task: Task, most: int, label: Array | Drawn, mask: Array | Drawn | None) -> None:
    """Refuse classes above the last one where the mask counts; without a mask every voxel does.

    Raises:
        InputError: a class that has no channel.
    """
    found = int(label.max())
    if found > most and mask is not None:
        found = max(int(part.max(initial=0, where=counts > 0)) for part, counts in pieces(label, mask))
    if found > most:
        wants = f"classes from 0 to {most}, as the output {task.name} has, or a mask over the others"
        raise InputError(f"{where} {task.source}", f"the class {found}", wants)


def ids(label: Array, dtype: Any, out: Array | None = None) -> Array:
    """The numbers of the label themselves, (1, Z, Y, X) of a type that holds them. Written into `out` if given."""
    if out is None and label.dtype != dtype:
        out = np.empty(label.shape, dtype)
    return owned(contiguous(label, out))


def of_one_channel(label: Array) -> Array:
    """Ids that have a channel for each class (C, Z, Y, X) as ids of all, (1, Z, Y, X): the greatest at each voxel."""
    return label if len(label) == 1 else label.max(0, keepdims=True)


def soft(label: Array, channels: int, out: Array | None = None) -> Array:
    """A target in [0, 1], (channels, Z, Y, X) float32: a label that is one, or 0 and 1 as `binary` makes them."""
    if label.dtype == np.float32:
        return owned(contiguous(label, out))
    out = np.empty((channels, *label.shape[1:]), np.float32) if out is None else out
    out[...] = binary(label, channels)
    return out


def binary(label: Array, channels: int, out: Array | None = None) -> Array:
    """0 or 1 at every voxel, (channels, Z, Y, X) uint8, from class labels (1 or channels, Z, Y, X).

    One channel is label > 0. Of several, channel i is label == i + 1, or, where the label has as many volumes, the
    i-th of them > 0. Written into `out` if given.
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
    """1 at boundaries between cells, (1, Z, Y, X) uint8, from instance ids (1, Z, Y, X).

    These are the voxels of the gap, seg == 0. Where instances touch without one (`touching`), also both voxels of
    every pair of neighbours in y or x with different ids, which makes the boundary two voxels wide::

        ids        1 1 1 2 2 2 0 0 3
        boundary   0 0 1 1 0 1 1 1 1

    Not in z: in thick sections a neurite that moves between two of them has no membrane there. Neighbours outside the
    patch do not count, nor, in a segmentation that is known `partly`, those of id -1. Written into `out` if given.
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
    """Whether a segmentation (1, Z, Y, X) has no gap between its instances, counted over neighbours in x.

    Some voxels or a rim without label are no gap: in one, instances meet 0 and hardly ever each other. Nor is id -1.
    """
    touch, gap = contacts(seg)
    return touch > TOUCHING * gap


def contacts(seg: Array | Drawn) -> tuple[int, int]:
    """How often instances (1, Z, Y, X) meet each other, and how often 0, over neighbours in x."""
    if isinstance(seg, Drawn):
        return seg.facts.touch, seg.facts.gap
    touch, gap = (sum(counts) for counts in zip(*map(meetings, seg[0]), strict=True))
    return touch, gap
