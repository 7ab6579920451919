"""Labels of an array as runs of equal voxels in array order, which are far fewer than voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def flat_steps(shape: Sequence[int]) -> tuple[int, int, int]:
    """The distances, as flat indices, between neighbours along z, y and x."""
    _, height, width = shape
    return height * width, width, 1


def shifted(flat: NDArray[Any], step: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views that pair each value of a flat array, from the one at `step` on, with the value `step` places before."""
    return flat[step:], flat[: max(len(flat) - step, 0)]


def starts(ordered: NDArray[Any]) -> Ints:
    """Start index of each run of equal values."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


def measured(labels: NDArray[np.unsignedinteger[Any]], count: int) -> tuple[Ints, Ints]:
    """The number of voxels of each label from 1, and the lowest flat index of each, both (count,) int64."""
    flat = labels.ravel()
    start = starts(flat)
    label, length = flat[start], np.diff(start, append=len(flat))
    sizes = np.bincount(label, length, count + 1)  # whole numbers, exact in a float
    first = np.zeros(count + 1, np.int64)
    first[label[::-1]] = start[::-1]  # with repeated indices the last assignment wins
    return sizes[1:].astype(np.int64), first[1:]
