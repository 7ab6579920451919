"""Map grey values to [0, 1], for images that are neither bytes nor floats in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.utils.errors import InputError

Array = NDArray[Any]

SAMPLED = 1 << 22
"""For types of more than 16 bits, percentiles are estimated from about this many evenly spaced voxels."""


@dataclass(frozen=True)
class Intensity:
    """A range of grey values per channel, or one for all: low maps to 0, high to 1, and values outside are clipped.

    Attributes:
        ranges: (low, high) by channel.
    """

    ranges: tuple[tuple[float, float], ...]

    def __call__(self, image: Array) -> NDArray[np.float32]:
        """Map (C, Z, Y, X) of any type to float32 in [0, 1]: clip((v - low) / (high - low), 0, 1).

        Raises:
            InputError: the number of channels does not match the ranges.
        """
        if len(self.ranges) not in (1, len(image)):
            raise InputError("intensity", f"{len(self.ranges)} ranges", f"1, or {len(image)}, one for each channel")
        # 16-bit integers are exact in float32; wider types are shifted and divided in float64
        exact = np.float32 if image.dtype.itemsize <= 2 or image.dtype == np.float32 else np.float64
        out = np.empty(image.shape, np.float32)
        for channel, into, (low, high) in zip(image, out, self.by_channel(len(image)), strict=True):
            moved = np.subtract(channel, exact(low), dtype=exact)
            np.multiply(moved, exact(1 / (high - low)), out=moved)
            np.clip(moved, 0, 1, out=into, casting="same_kind")
        return out

    def by_channel(self, channels: int) -> tuple[tuple[float, float], ...]:
        """Return the range of each channel."""
        return self.ranges * channels if len(self.ranges) == 1 else self.ranges

    def in_words(self) -> str:
        """Return the ranges as text, such as ``112 to 4031``."""
        return ", ".join(f"{low:g} to {high:g}" for low, high in self.ranges)

    def plain(self) -> dict[str, Any]:
        """Return the ranges as lists of numbers, for checkpoints."""
        return {"ranges": [list(pair) for pair in self.ranges]}


@dataclass(frozen=True)
class Percentiles:
    """Percentiles from which the range of a volume is computed.

    Attributes:
        low: The percentile that maps to 0, in per cent.
        high: The percentile that maps to 1.
    """

    low: float
    high: float

    def of(self, where: object, blocks: Iterable[Array], voxels: int) -> Intensity:
        """Compute the range of each channel of an image, block by block.

        Args:
            where: The name of the image in errors.
            blocks: Blocks (C, Z, Y, X), all of one type.
            voxels: Total number of voxels per channel.

        Raises:
            InputError: both percentiles have the same value.
        """
        step = max(voxels // SAMPLED, 1)
        counts: list[dict[Any, int]] = []
        for block in blocks:
            counts = counts or [{} for _ in block]
            for channel, count in zip(block, counts, strict=True):
                for value, times in zip(*_counted(channel, step), strict=True):
                    count[value] = count.get(value, 0) + times
        ranges = tuple(self._range(count) for count in counts)
        if bad := [pair for pair in ranges if not pair[0] < pair[1]]:
            wants = f"an image whose percentiles {self.low:g} and {self.high:g} differ"
            raise InputError(where, f"the grey value {bad[0][0]:g} at both", wants)
        return Intensity(ranges)

    def _range(self, count: Mapping[Any, int]) -> tuple[float, float]:
        values = np.array(sorted(count))
        total = np.cumsum([count[value] for value in values.tolist()])
        low, high = np.searchsorted(total, np.array([self.low, self.high]) / 100 * total[-1] * (1 - 1e-12))
        return float(values[low]), float(values[min(high, len(values) - 1)])

    def plain(self) -> dict[str, Any]:
        """Return the percentiles as a list of numbers, for checkpoints."""
        return {"percentiles": [self.low, self.high]}


def _counted(channel: Array, step: int) -> tuple[list[Any], list[int]]:
    """Return the distinct values of an array and their counts; types of more than 16 bits use every step-th voxel."""
    if channel.dtype.kind in "ui" and channel.dtype.itemsize <= 2:
        least = int(np.iinfo(channel.dtype).min)
        times = np.bincount(channel.ravel().astype(np.int32) - least)
        values = np.flatnonzero(times)
        return (values + least).tolist(), times[values].tolist()
    found, often = np.unique(channel.ravel()[::step], return_counts=True)
    return found.tolist(), often.tolist()


def from_plain(given: Mapping[str, Any] | None) -> Intensity | Percentiles | None:
    """Read the intensity mapping from a checkpoint: ranges, percentiles, or None for bytes and floats in [0, 1]."""
    if not given:
        return None
    if "percentiles" in given:
        low, high = given["percentiles"]
        return Percentiles(float(low), float(high))
    return Intensity(tuple((float(low), float(high)) for low, high in given["ranges"]))


def slabs(image: Array, voxels: int = 1 << 22) -> Iterator[Array]:
    """Split an image (C, Z, Y, X) into blocks of sections."""
    step = max(1, voxels // max(1, int(np.prod(image.shape[2:]))))
    for z in range(0, image.shape[1], step):
        yield image[:, z : z + step]
