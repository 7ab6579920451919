"""Gaussian blur of many small blocks, by products with small matrices, which avoids the overhead of filter calls."""

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
"""Number of widths from which random widths are drawn; matrices are cached by width and side."""

SIDE = 64
"""Blocks longer than this in y or x use a filter, since matrices would be slower."""


@dataclass(frozen=True)
class SmallBlur(Blur):
    """`Blur` for many small blocks; with `random`, the width is the middle of one of 64 equal intervals of [0, sigma).

    The result equals a Gaussian filter along all axes, mirrored at the block's borders, and rounded once at the end.
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
    """Return the filter for a row of n values as a matrix (n, n)."""
    filtered: F32 = gaussian_filter1d(np.eye(n, dtype=np.float32), sigma, axis=0)
    return filtered
