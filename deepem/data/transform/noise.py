"""Replace an image by blurred normal noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from deepem.data.transform.base import Array
from deepem.data.transform.field import F32
from deepem.data.transform.perturb import Change, Perturb, round_to

WIDTHS = 8
"""Number of noise images, each with another width of the blur."""

ROOM = 3
"""Side of a noise image divided by the side of the largest block."""


@dataclass(frozen=True)
class Noise(Perturb):
    """Replace a block by blurred normal noise of mean 0.5 and standard deviation 0.25, clipped to [0, 1].

    `sigma` is the range of the blur's width in voxels; `side` is the longest side of a block.
    """

    sigma: tuple[float, float] = (2, 5)
    side: int = field(default=64, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: got {self.sigma}, wants a range of positive numbers of voxels")

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw noise images, and a window of one of them."""
        change = self.draw_many(1, rng)
        return lambda block: change(0, block)

    def draw_many(self, n: int, rng: np.random.Generator) -> Callable[[int, Array], None]:
        """Draw noise images, and for each of n blocks a window of one of them."""
        images = self._images(min(n, WIDTHS), rng)
        as_bytes = round_to(images * 255, np.dtype(np.uint8))
        which, side = rng.integers(len(images), size=n).tolist(), self.side
        places = (ROOM - 1) * side + 1
        tops, lefts = rng.integers(places, size=(2, n)).tolist()

        def change(i: int, block: Array) -> None:
            image = (as_bytes if block.dtype == np.uint8 else images)[which[i]]
            top, left = tops[i], lefts[i]
            _, depth, rows, cols = block.shape
            for z in range(depth):
                block[:, z] = image[top : top + rows, left : left + cols]
                top = (top + side) % places  # each section of the block shows a different part

        return change

    def _images(self, n: int, rng: np.random.Generator) -> F32:
        """Draw noise images (n, Y, X) in [0, 1], each with another width of the blur."""
        low, high = self.sigma
        widths = low + (high - low) * (np.arange(n) + rng.random(n)) / n
        noise = rng.standard_normal((n, ROOM * self.side, ROOM * self.side), np.float32)
        for image, sigma in zip(noise, widths.tolist(), strict=True):
            cv2.GaussianBlur(image, (0, 0), sigma, dst=image)
            image *= 0.25 * 2 * np.pi**0.5 * sigma  # the blur leaves a deviation of 1 / (2 sqrt(pi) sigma)
        noise += 0.5
        return noise.clip(0, 1, out=noise)
