"""Gaussian blur of many small blocks: products with small matrices, which cost less than a filter takes to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from deepem.data.transform.base import Array
from deepem.data.transform.field import F32
from deepem.data.transform.perturb import MIN_SIGMA, Blur, round_to

WIDTHS = 64
"""How many widths random ones are drawn from: matrices are made once per width and side."""

SIDE = 64
"""Blocks longer than this in y or x go through a filter: matrices would cost more."""


@dataclass(frozen=True)
class SmallBlur(Blur):
    """`Blur` of each of many blocks, with `random` by one of 64 widths that part [0, sigma) evenly, at their middles.

    The grey values are those of a Gaussian filter along all axes, mirrored at the borders of the block, rounded once.
    """

    def draw_many(self, n: int, rng: np.random.Generator) -> Callable[[int, Array], None]:
        """Draw the widths."""
        widths = (self.sigma * (rng.integers(WIDTHS, size=n) + 0.5) / WIDTHS).tolist() if self.random else []

        def change(i: int, block: Array) -> None:
            blur(block, widths[i] if self.random else self.sigma)

        return change


def blur(block: Array, sigma: float) -> None:
    """Blur a block (C, Z, Y, X) along z, y and x, in place."""
    if sigma < MIN_SIGMA:
        return
    _, z, y, x = block.shape
    if max(y, x) > SIDE:
        values: Array = block
        for axis in (1, 2, 3):
            values = gaussian_filter1d(values, sigma, axis=axis, output=np.float32)
        block[...] = round_to(values, block.dtype)
        return
    for channel in block:
        values = _matrix(y, sigma) @ channel.astype(np.float32) @ _matrix(x, sigma).T
        if z > 1:
            values = (_matrix(z, sigma) @ values.reshape(z, -1)).reshape(values.shape)
        channel[...] = round_to(values, block.dtype)


@lru_cache(maxsize=64 * WIDTHS)
def _matrix(n: int, sigma: float) -> F32:
    """What the filter does to n values in a row, (n, n)."""
    filtered: F32 = gaussian_filter1d(np.eye(n, dtype=np.float32), sigma, axis=0)
    return filtered
