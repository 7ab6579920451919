"""The learning rate: a function of the iteration alone, so that there is nothing to save and nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SCHEDULES = ("constant", "step", "cosine", "poly")


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate of every iteration.

    With t the share of the way from the end of the warm-up to `until` that lies behind::

        constant  1
        step      gamma ^ (number of `steps` that are done)
        cosine    (1 + cos(pi t)) / 2
        poly      (1 - t) ^ power

    and while it warms up, iteration / warmup of that.
    """

    name: str = "constant"
    warmup: int = 0
    until: int = 1
    steps: Sequence[int] = ()
    gamma: float = 0.1
    power: float = 0.9

    def __call__(self, iteration: int) -> float:
        """The factor in an iteration, the first of which is 1."""
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
