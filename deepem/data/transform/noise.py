"""Noise in place of an image: normal, blurred."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.base import Array
from deepem.data.transform.field import F32
from deepem.data.transform.perturb import Change, Perturb, round_to

WIDTHS = 8
"""How many widths of the blur there are noise images of."""

ROOM = 3
"""The side of a noise image over that of the largest block."""


@dataclass(frozen=True)
class Noise(Perturb):
    """Blurred normal noise, mean 0.5 and standard deviation 0.25, clipped to [0, 1].

    `sigma` is the range, in voxels, of the width of the blur, `side` the longest side of a block.
    """

    sigma: tuple[float, float] = (2, 5)
    side: int = field(default=64, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: got {self.sigma}, wants a range of positive numbers of voxels")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw noise images and a window of them."""
        return self.windows(1, rng)[0]

    def windows(self, n: int, rng: np.random.Generator) -> list[Change]:
        """Draw noise images, and for each of n blocks which of them it shows, and where."""
        images = self._images(min(n, WIDTHS), rng)
        as_bytes = round_to(images * 255, np.dtype(np.uint8))
        which = rng.integers(len(images), size=n).tolist()
        corners = rng.integers(self._places, size=(n, 2)).tolist()
        return [self._window(images[i], as_bytes[i], *corner) for i, corner in zip(which, corners, strict=True)]

    @property
    def _places(self) -> int:
        return (ROOM - 1) * self.side + 1

    def _images(self, n: int, rng: np.random.Generator) -> F32:
        """Noise images (n, Y, X) in [0, 1], each of another width."""
        low, high = self.sigma
        widths = low + (high - low) * (np.arange(n) + rng.random(n)) / n
        noise = rng.standard_normal((n, ROOM * self.side, ROOM * self.side), np.float32)
        for image, sigma in zip(noise, widths.tolist(), strict=True):
            cv2.GaussianBlur(image, (0, 0), sigma, dst=image)
            image *= 0.25 * 2 * np.pi**0.5 * sigma  # white noise is left with a deviation of 1 / (2 sqrt(pi) sigma)
        noise += 0.5
        return noise.clip(0, 1, out=noise)

    def _window(self, image: F32, as_bytes: NDArray[np.uint8], y: int, x: int) -> Change:
        def change(block: Array) -> None:
            source: Array = as_bytes if block.dtype == np.uint8 else image
            rows, cols = block.shape[-2:]
            for z in range(block.shape[1]):
                top = (y + z * self.side) % self._places  # each section of the block shows another part
                block[:, z] = source[top : top + rows, x : x + cols]

        return change
