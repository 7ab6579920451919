"""Sharpen sections by an unsharp mask, which enhances edges and noise; labels and masks stay unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from deepem.data.transform.base import Array
from deepem.data.transform.perturb import Change, Perturb, planes
from deepem.data.transform.section import Section


@dataclass(frozen=True)
class Unsharp(Perturb):
    """Sharpen: v + a (v - g), clipped to [0, 1]; g is v blurred in its section by a Gaussian of `sigma` voxels.

    The amount a is drawn from [0, amount).
    """

    amount: float = 1.0
    sigma: float = 1.5

    def __post_init__(self) -> None:
        if self.amount < 0 or self.sigma <= 0:
            raise ValueError(
                f"amount, sigma: got {self.amount}, {self.sigma}, wants an amount of 0 or more and a positive number"
            )

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw the amount."""
        amount = self.amount * float(rng.random())

        def change(block: Array) -> None:
            for plane in planes(block):
                soft = cv2.GaussianBlur(plane, (0, 0), self.sigma, borderType=cv2.BORDER_REFLECT)
                sharp = cv2.addWeighted(plane, 1 + amount, soft, -amount, 0)  # for uint8, OpenCV rounds and clips
                plane[...] = sharp if plane.dtype == np.uint8 else sharp.clip(0, 1)

        return change


class Sharpen(Section):
    """Sharpen sections by an unsharp mask, its amount drawn from [0, amount); arguments of `Section`."""

    def __init__(self, amount: float = 1.0, sigma: float = 1.5, prob: float | None = 1, **section: Any) -> None:
        prob = None if section.get("maxsec") else prob
        super().__init__(Unsharp, amount=amount, sigma=sigma, prob=prob, **section)
