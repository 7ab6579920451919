"""What can happen to the grey values of a block of an image: a section, a quadrant of one, a box, or all of it.

A perturbation draws its numbers once and gives the function that changes a block (C, Z, Y, X) in place, uint8 or
float32 in [0, 1]. The same function changes every block it is given in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from deepem.data.transform.base import Array, probability

cv2.setNumThreads(0)  # samples are made side by side, one per worker; a thread pool would not survive a fork either

Change = Callable[[Array], None]

MIN_SIGMA = 0.1
"""A Gaussian narrower than this, in voxels, leaves an image as it is."""


class Perturb(ABC):
    """A change of grey values with random parameters."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the parameters; the result changes a block (C, Z, Y, X) in place."""

    def draw_many(self, n: int, rng: np.random.Generator) -> Callable[[int, Array], None]:
        """Draw the parameters for each of n blocks; the result changes block i in place."""
        changes = [self.draw(rng) for _ in range(n)]
        return lambda i, block: changes[i](block)


def in_rows(image: Array) -> Array:
    """The array itself if its rows lie forwards in memory, as OpenCV needs them, else a copy of which that is true."""
    _, y, x = image.strides[-3:]
    return image if x == image.itemsize and y >= x * image.shape[-1] else np.ascontiguousarray(image)


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


@dataclass(frozen=True)
class Fill(Perturb):
    """One grey value everywhere, in [0, 1]: `value`, or with `random` drawn uniformly from [0, 1)."""

    value: float = 0
    random: bool = True

    def __post_init__(self) -> None:
        probability("value", self.value)

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the value if it is random."""
        value = float(rng.random()) if self.random else self.value

        def change(block: Array) -> None:
            block[...] = grey(value, block.dtype)

        return change

    def draw_many(self, n: int, rng: np.random.Generator) -> Callable[[int, Array], None]:
        """Draw all values at once: there may be a thousand."""
        values = rng.random(n).tolist() if self.random else [self.value] * n

        def change(i: int, block: Array) -> None:
            block[...] = grey(values[i], block.dtype)

        return change


@dataclass(frozen=True)
class Blur(Perturb):
    """Gaussian blur along every spatial axis, mirrored at the borders of the block.

    `sigma` in voxels, or with `random` drawn uniformly from [0, sigma).
    """

    sigma: float = 5.0
    random: bool = True

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"sigma: got {self.sigma}, wants a positive number of voxels")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the width if it is random."""
        sigma = self.sigma * float(rng.random()) if self.random else self.sigma

        def change(block: Array) -> None:
            if sigma < MIN_SIGMA:
                return
            for plane in planes(block):
                replace(plane, cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
            if block.shape[1] > 1:
                block[...] = round_to(gaussian_filter1d(block, sigma, axis=1, output=np.float32), block.dtype)

        return change


@dataclass(frozen=True)
class Motion(Perturb):
    """The section moved while it was recorded: the mean along a straight line through each voxel.

    `length` is the range, in voxels, that the length of the line is drawn from; its angle is uniform.
    """

    length: tuple[float, float] = (3.0, 15.0)

    def __post_init__(self) -> None:
        if not 1 <= self.length[0] <= self.length[1]:
            raise ValueError(f"length: got {self.length}, wants a range of voxels from 1 up")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw length and angle."""
        line = segment(float(rng.uniform(*self.length)), float(rng.uniform(0, np.pi)))

        def change(block: Array) -> None:
            for plane in planes(block):
                replace(plane, cv2.filter2D(plane, -1, line, borderType=cv2.BORDER_REFLECT))

        return change


def segment(length: float, angle: float) -> NDArray[np.float32]:
    """A line of some length through the middle of a square kernel: weights that sum to 1, shared by nearby voxels."""
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 2, 2 * half + 2), np.float32)
    t = (np.arange(8 * half) + 0.5) / (8 * half) - 0.5
    y, x = half + length * t * np.sin(angle), half + length * t * np.cos(angle)
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    for dy, dx, weight in ((0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx), (1, 0, fy * (1 - fx)), (1, 1, fy * fx)):
        np.add.at(kernel, (y0 + dy, x0 + dx), weight)
    kernel = kernel[:-1, :-1]
    kernel /= kernel.sum()
    return kernel


def round_to(values: NDArray[np.floating], dtype: np.dtype[Any]) -> Array:
    """Values of an image, computed as floats, in its own type."""
    return np.rint(values).astype(dtype) if dtype == np.uint8 else values.astype(dtype, copy=False)
