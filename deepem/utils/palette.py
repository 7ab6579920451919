"""Colours of classes, shared by all pictures."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

FIRST = (
    *((0.90, 0.25, 0.20), (0.20, 0.55, 0.90), (0.25, 0.75, 0.30), (0.95, 0.75, 0.15)),
    *((0.65, 0.35, 0.85), (0.95, 0.55, 0.20), (0.20, 0.80, 0.80), (0.95, 0.50, 0.75)),
)
"""Colours of classes 1 to 8."""


def class_colours(count: int) -> NDArray[np.float32]:
    """Return a colour per class, (count, 3) float32 in [0, 1]: black for class 0, then easily distinguished colours."""
    more = [colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.6 + 0.4 * (i % 2), 0.9) for i in range(len(FIRST), count)]
    return np.array([(0, 0, 0), *FIRST, *more][:count], np.float32)
