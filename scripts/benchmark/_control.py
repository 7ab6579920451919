"""The fixed workload that carries recorded speeds from one machine to another, and the clock that times both."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np


class Control:
    """The workload that carries recorded speeds from one machine to another; absent, no ratios are given."""

    def __init__(self, path: Path) -> None:
        self.module: ModuleType | None = None
        if path.is_file():
            spec = importlib.util.spec_from_file_location("control", path)
            assert spec is not None
            assert spec.loader is not None
            self.module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.module)
            rng = np.random.default_rng(0)
            grey = rng.random((64, 768, 768), dtype=np.float32)
            ids = rng.integers(0, 500, grey.shape, dtype=np.uint32)
            y, x = np.meshgrid(np.arange(256.0) - 128, np.arange(256.0) - 128, indexing="ij")
            yy = np.rint(np.cos(0.5) * y - np.sin(0.5) * x + 170).astype(int).clip(0, 339)
            xx = np.rint(np.sin(0.5) * y + np.cos(0.5) * x + 170).astype(int).clip(0, 339)
            self.arguments = grey, ids, yy, xx

    def ms(self, runs: int) -> float | None:
        """Median of some runs."""
        if self.module is None:
            return None
        workload = self.module.workload
        return statistics.median(clock(lambda: workload(*self.arguments)) for _ in range(runs))

    def public(self, name: str, ms: float | None) -> float | None:
        """Samples/s of the public stack where the control takes so long."""
        if ms is None or self.module is None:
            return None
        return float(1e3 / (self.module.RATIO[name] * ms))


def clock(function: Callable[[], object]) -> float:
    """Milliseconds of processor time of one call: all is in one thread, and other processes do not count."""
    start = time.process_time()
    function()
    return (time.process_time() - start) * 1e3
