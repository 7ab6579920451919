"""Perturbations: changes of the grey values of a block of an image (a section, a quadrant, a box or a whole patch).

A perturbation draws its parameters once and returns a function that changes a block (C, Z, Y, X) in place, uint8 or
float32 in [0, 1]. This function changes every block in the same way.
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

cv2.setNumThreads(0)  # workers already run in parallel, and OpenCV's thread pool would not survive a fork

Change = Callable[[Array], None]

MIN_SIGMA = 0.1
"""A Gaussian narrower than this, in voxels, does not change an image."""


def unchanged(block: Array) -> None:
    """The change that does nothing."""


class Perturb(ABC):
    """Base class: a change of grey values with random parameters."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the parameters; return a function that changes a block (C, Z, Y, X) in place."""

    def draw_many(self, n: int, rng: np.random.Generator) -> Callable[[int, Array], None]:
        """Draw parameters for each of n blocks; return a function that changes block i in place."""
        changes = [self.draw(rng) for _ in range(n)]
        return lambda i, block: changes[i](block)


def in_rows(image: Array) -> Array:
    """Return the array itself if OpenCV can read it (rows without negative strides), else a copy."""
    _, y, x = image.strides[-3:]
    return image if x == image.itemsize and y >= x * image.shape[-1] else np.ascontiguousarray(image)


def planes(block: Array) -> Iterator[Array]:
    """Yield the sections (Y, X) of a block as views, channel by channel."""
    for channel in block:
        yield from channel


def grey(value: float, dtype: np.dtype[np.generic]) -> int | float:
    """Convert a grey value in [0, 1] to the image's dtype."""
    return round(value * 255) if dtype == np.uint8 else value


def replace(plane: Array, new: Array) -> None:
    """Write a result into a section, unless the operation already wrote it there."""
    if new is not plane:
        plane[...] = new


@dataclass(frozen=True)
class Grayscale(Perturb):
    """Change contrast and brightness, clip to [0, 1], then apply gamma: clip(c v + b, 0, 1) ** g.

    c = 1 + contrast_factor * U[-0.5, 0.5), b = brightness_factor * U[-0.5, 0.5), g = 2 ** U[-1, 1).
    """

    contrast_factor: float = 0.3
    brightness_factor: float = 0.3

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw contrast, brightness and gamma; uint8 images use a lookup table of 256 values."""
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
    """Return a function that maps the grey values of a block; `curve` maps floats in [0, 1] in place.

    For uint8 images, the curve is evaluated once, for the 256 possible values.
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
    """Fill a block with one grey value in [0, 1]: `value`, or with `random` one drawn uniformly from [0, 1)."""

    value: float = 0
    random: bool = True

    def __post_init__(self) -> None:
        probability("value", self.value)

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the value if `random`."""
        value = float(rng.random()) if self.random else self.value

        def change(block: Array) -> None:
            block[...] = grey(value, block.dtype)

        return change

    def draw_many(self, n: int, rng: np.random.Generator) -> Callable[[int, Array], None]:
        """Draw all values at once, since there may be a thousand blocks."""
        values = rng.random(n).tolist() if self.random else [self.value] * n

        def change(i: int, block: Array) -> None:
            block[...] = grey(values[i], block.dtype)

        return change


@dataclass(frozen=True)
class Blur(Perturb):
    """Blur a block with a Gaussian along every spatial axis, mirrored at the block's borders.

    The width is `sigma` voxels, or with `random` drawn uniformly from [0, sigma).
    """

    sigma: float = 5.0
    random: bool = True

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"sigma: got {self.sigma}, wants a positive number of voxels")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the width if `random`."""
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
    """Motion blur: average along a straight line through each voxel.

    The length of the line is drawn from the range `length`, in voxels; its angle is uniform.
    """

    length: tuple[float, float] = (3.0, 15.0)

    def __post_init__(self) -> None:
        if not 1 <= self.length[0] <= self.length[1]:
            raise ValueError(f"length: got {self.length}, wants a range of voxels from 1 up")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the line's length and angle."""
        line = segment(float(rng.uniform(*self.length)), float(rng.uniform(0, np.pi)))

        def change(block: Array) -> None:
            for plane in planes(block):
                replace(plane, cv2.filter2D(plane, -1, line, borderType=cv2.BORDER_REFLECT))

        return change


def segment(length: float, angle: float) -> NDArray[np.float32]:
    """Return a square kernel with an antialiased line of some length through its centre; the weights sum to 1."""
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
    """Convert grey values computed as floats to the image's dtype."""
    return np.rint(values).astype(dtype) if dtype == np.uint8 else values.astype(dtype, copy=False)
