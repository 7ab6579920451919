"""Facts about a whole array that are needed before patches can be cut: its range, and how instances touch.

`Held` computes the facts of an array in memory on demand. `Facts` holds the facts that one scan of an array on disk
found; see `deepem.data.scan`. Both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 32
"""Side of the cubes in which non-zero voxels are counted."""


class Known(Protocol):
    """Protocol: facts about an array (C, Z, Y, X)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, Z, Y, X) of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""

    @property
    def low(self) -> Any:
        """Smallest value; NaN if the array has a NaN."""

    @property
    def high(self) -> Any:
        """Largest value; NaN if the array has a NaN."""

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""

    @property
    def two_valued(self) -> bool:
        """Whether 0 and the largest value are the only values."""

    @property
    def near_top(self) -> bool:
        """Whether the value one below the maximum of an integer dtype occurs."""


@dataclass(frozen=True)
class Held:
    """Facts about an array in memory, computed on demand."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, Z, Y, X) of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.array.dtype

    @cached_property
    def low(self) -> Any:
        """Smallest value."""
        return self.array.min()

    @cached_property
    def high(self) -> Any:
        """Largest value."""
        return self.array.max()

    @cached_property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(bool((part == np.trunc(part)).all()) for part in self._sections())

    @cached_property
    def two_valued(self) -> bool:
        """Whether 0 and the largest value are the only values."""
        return all(bool(((part == 0) | (part == self.high)).all()) for part in self._sections())

    @cached_property
    def near_top(self) -> bool:
        """Whether the value one below the maximum of the dtype occurs."""
        return any(bool((part == np.iinfo(self.dtype).max - 1).any()) for part in self._sections())

    def _sections(self) -> Iterable[Array]:
        """Yield the (Y, X) sections one by one, to keep temporaries small."""
        return (section for channel in self.array for section in channel)


@dataclass(frozen=True)
class Facts:
    """The facts that a scan of an array found; see `Known`.

    Attributes:
        marked: Number of non-zero voxels of the first channel.
        touch: Number of neighbours in x with different ids, neither of them 0.
        gap: Number of neighbours in x with different ids, one of them 0.
        absent: Number of chunks missing in the file.
        lacking: Name of one missing chunk.
        blocks: Non-zero voxels of the first channel in each cube of BLOCK voxels, (z, y, x).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: Any
    high: Any
    whole: bool
    two_valued: bool
    near_top: bool
    marked: int
    touch: int
    gap: int
    absent: int
    lacking: str
    blocks: NDArray[np.int64]


def block_counts(mask: Array) -> NDArray[np.int64]:
    """Count the non-zero voxels of a mask (Z, Y, X) in each cube of side BLOCK."""
    grid = [-(-n // BLOCK) for n in mask.shape]
    counts = np.zeros(grid, np.int64)
    for z, layer in enumerate(counts):
        add_blocks(layer[None], mask[z * BLOCK : (z + 1) * BLOCK], (0, 0, 0))
    return counts


def add_blocks(counts: NDArray[np.int64], mask: Array, begin: tuple[int, ...]) -> None:
    """Add the non-zero voxels of a box of a mask to the counts of their cubes."""
    found: Array = (mask != 0).astype(np.int32)
    for axis in (2, 1, 0):
        first, length = begin[axis], found.shape[axis]
        cuts = np.arange(first // BLOCK * BLOCK, first + length, BLOCK) - first
        found = np.add.reduceat(found, cuts.clip(0), axis=axis)
    z, y, x = (slice(b // BLOCK, b // BLOCK + n) for b, n in zip(begin, found.shape, strict=True))
    counts[z, y, x] += found
