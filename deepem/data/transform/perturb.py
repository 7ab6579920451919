"""What can happen to the grey values of a block of an image: a section, a quadrant of one, a box, or all of it.

A perturbation draws its numbers once and gives the function that changes a block (C, Z, Y, X) in place, uint8 or
float32 in [0, 1]. The same function changes every block it is given in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.base import Array

cv2.setNumThreads(0)  # samples are made side by side, one per worker; a thread pool would not survive a fork either

Change = Callable[[Array], None]


class Perturb(ABC):
    """A change of grey values with random parameters."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the parameters; the result changes a block (C, Z, Y, X) in place."""


def in_rows(image: Array) -> Array:
    """The array itself if its rows lie forwards in memory, as OpenCV needs them, else a copy that does."""
    z, y, x = image.strides[-3:]
    return image if x == image.itemsize and y >= x * image.shape[-1] and z > 0 else np.ascontiguousarray(image)


def planes(block: Array) -> Iterator[Array]:
    """The sections (Y, X) of a block, channel by channel, as views."""
    for channel in block:
        yield from channel


def grey(value: float, dtype: np.dtype[np.generic]) -> int | float:
    """A grey value in [0, 1] as an image of this type holds it."""
    return round(value * 255) if dtype == np.uint8 else value


def replace(plane: Array, new: Array) -> None:
    """Write a result into a section, unless the operation already did."""
    if new is not plane:
        plane[...] = new


@dataclass(frozen=True)
class Grayscale(Perturb):
    """Contrast, brightness, clipping to [0, 1], then gamma: clip(c v + b, 0, 1) ** g.

    c = 1 + contrast_factor * U[-0.5, 0.5), b = brightness_factor * U[-0.5, 0.5), g = 2 ** U[-1, 1).
    """

    contrast_factor: float = 0.3
    brightness_factor: float = 0.3

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw contrast, brightness and gamma; uint8 goes through a table of its 256 values."""
        u, v, w = rng.random(3)
        contrast = 1 + (u - 0.5) * self.contrast_factor
        brightness = (v - 0.5) * self.brightness_factor
        gamma = 2.0 ** (2 * w - 1)

        def curve(values: NDArray[np.floating]) -> None:
            values *= contrast
            values += brightness
            np.clip(values, 0, 1, out=values)
            np.power(values, gamma, out=values)

        return through_table(curve)


def through_table(curve: Callable[[NDArray[np.floating]], None]) -> Change:
    """The change of a block by a curve that maps grey values in [0, 1], given as floats, in place.

    Each of the 256 values of a uint8 image is mapped once.
    """
    values = np.arange(256) / 255
    curve(values)
    table = np.rint(values * 255).clip(0, 255).astype(np.uint8)

    def change(block: Array) -> None:
        if block.dtype == np.uint8:
            for plane in planes(block):
                replace(plane, cv2.LUT(plane, table, dst=plane))
        else:
            curve(block)

    return change
