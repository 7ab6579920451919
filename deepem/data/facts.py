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
        """(C, Z, Y, X)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is given."""

    @property
    def low(self) -> Any:
        """The least value; NaN if there is one."""

    @property
    def high(self) -> Any:
        """The greatest value; NaN if there is one."""

    @property
    def whole(self) -> bool:
        """No value has a fraction."""

    @property
    def two_valued(self) -> bool:
        """No value but 0 and the greatest."""

    @property
    def near_top(self) -> bool:
        """The value one below the greatest of an integer type is there."""


@dataclass(frozen=True)
class Held:
    """An array in memory, looked at when something is asked."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Z, Y, X)."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is given."""
        return self.array.dtype

    @cached_property
    def low(self) -> Any:
        """The least value."""
        return self.array.min()

    @cached_property
    def high(self) -> Any:
        """The greatest value."""
        return self.array.max()

    @cached_property
    def whole(self) -> bool:
        """No value has a fraction."""
        return all(bool((part == np.trunc(part)).all()) for part in self._sections())

    @cached_property
    def two_valued(self) -> bool:
        """No value but 0 and the greatest."""
        return all(bool(((part == 0) | (part == self.high)).all()) for part in self._sections())

    @cached_property
    def near_top(self) -> bool:
        """The value one below the greatest of its type is there."""
        return any(bool((part == np.iinfo(self.dtype).max - 1).any()) for part in self._sections())

    def _sections(self) -> Iterable[Array]:
        """The (Y, X) sections one by one: temporaries of a check stay small."""
        return (section for channel in self.array for section in channel)


@dataclass(frozen=True)
class Facts:
    """What a pass over an array has found; see `Known`.

    Attributes:
        marked: Voxels of the first channel that are not 0.
        touch: Neighbours in x of different ids, neither of them 0.
        gap: Neighbours in x of which one is 0.
        absent: Chunks that are not there.
        lacking: One of them.
        blocks: Marked voxels in each cube of BLOCK voxels, (z, y, x), of the first channel.
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
    """The voxels that are not 0 in each cube of BLOCK, of a mask (Z, Y, X)."""
    grid = [-(-n // BLOCK) for n in mask.shape]
    counts = np.zeros(grid, np.int64)
    for z, layer in enumerate(counts):
        add_blocks(layer[None], mask[z * BLOCK : (z + 1) * BLOCK], (0, 0, 0))
    return counts


def add_blocks(counts: NDArray[np.int64], mask: Array, begin: tuple[int, ...]) -> None:
    """Add the voxels of a box of a mask that are not 0 to the counts of the cubes that they lie in."""
    found: Array = (mask != 0).astype(np.int32)
    for axis in (2, 1, 0):
        first, length = begin[axis], found.shape[axis]
        cuts = np.arange(first // BLOCK * BLOCK, first + length, BLOCK) - first
        found = np.add.reduceat(found, cuts.clip(0), axis=axis)
    z, y, x = (slice(b // BLOCK, b // BLOCK + n) for b, n in zip(begin, found.shape, strict=True))
    counts[z, y, x] += found
