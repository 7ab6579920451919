"""The learning rate as a function of the iteration alone, so that no state has to be saved or restored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate in each iteration.

    With t in [0, 1] the progress from the end of the warm-up to `until`::

        constant  1
        step      gamma ^ (number of `steps` already passed)
        cosine    (1 + cos(pi t)) / 2
        poly      (1 - t) ^ power

    During the warm-up, the factor is multiplied by iteration / warmup.
    """

    name: str = "constant"
    warmup: int = 0
    until: int = 1
    steps: Sequence[int] = ()
    gamma: float = 0.1
    power: float = 0.9

    def __call__(self, iteration: int) -> float:
        """Return the factor for an iteration; iterations count from 1."""
        done = iteration - 1
        t = min(max((done - self.warmup) / max(self.until - self.warmup, 1), 0.0), 1.0)
        factors = {
            "constant": 1.0,
            "step": math.pow(self.gamma, sum(step <= done for step in self.steps)),
            "cosine": (1 + math.cos(math.pi * t)) / 2,
            "poly": math.pow(1 - t, self.power),
        }
        factor = factors[self.name]
        return factor * min(1.0, iteration / self.warmup) if self.warmup else factor
