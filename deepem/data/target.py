"""From the label of a patch to the target of a head, by kind of task."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.data.volume import Array
from deepem.tasks import Task
from deepem.utils.contiguous import contiguous, turned
from deepem.utils.errors import InputError

TOUCHING = 4
"""A segmentation has no gap where instances meet each other this many times as often as they meet 0."""


def check(where: str, task: Task, channels: int, label: Array) -> None:
    """Refuse a label whose channels are not what the head's channels can be made from.

    Raises:
        InputError: as many volumes neither as the head has channels nor one.
    """
    if task.kind == "binary" and label.shape[0] not in (1, channels):
        raise InputError(f"{where} {task.source}", f"{label.shape[0]} volumes", f"1 or {channels}, one per channel")


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


def boundary(seg: Array, touching: bool, out: Array | None = None) -> Array:
    """1 at boundaries between cells, (1, Z, Y, X) uint8, from instance ids (1, Z, Y, X).

    These are the voxels of the gap, seg == 0. Where instances touch without one (`touching`), also both voxels of
    every pair of neighbours in y or x with different ids, which makes the boundary two voxels wide::

        ids        1 1 1 2 2 2 0 0 3
        boundary   0 0 1 1 0 1 1 1 1

    Not in z: in thick sections a neurite that moves between two of them has no membrane there. Neighbours outside the
    patch do not count. Written into `out` if given.
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
            edge[low] |= differ
            edge[high] |= differ
    return out


def instances_touch(seg: Array) -> bool:
    """Whether a segmentation (1, Z, Y, X) has no gap between its instances, counted over neighbours in x.

    Some voxels or a rim without label are no gap: in one, instances meet 0 and hardly ever each other.
    """
    touch = gap = 0
    for section in seg[0]:
        a, b = section[:, :-1], section[:, 1:]
        differ = a != b
        zero = differ & ((a == 0) | (b == 0))
        at_zero = int(np.count_nonzero(zero))
        touch += int(np.count_nonzero(differ)) - at_zero
        gap += at_zero
    return touch > TOUCHING * gap
