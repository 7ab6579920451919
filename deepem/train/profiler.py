"""A trace of some training steps, for chrome://tracing or Perfetto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SETTLED = 5
"""Steps to skip before tracing: they choose algorithms, compile, and fill caches."""


class Profiler:
    """Traces `steps` steps of a run, after the first few, and writes `trace.json`; does nothing if `steps` is 0."""

    def __init__(self, steps: int, folder: Path) -> None:
        self._profile: Any = None
        if steps:
            self._profile = torch.profiler.profile(
                schedule=torch.profiler.schedule(skip_first=SETTLED, wait=0, warmup=1, active=steps, repeat=1),
                on_trace_ready=lambda done: done.export_chrome_trace(str(folder / "trace.json")),
                record_shapes=True,
            )

    def __enter__(self) -> Profiler:
        if self._profile is not None:
            self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._profile is not None:
            self._profile.__exit__(*error)

    def step(self) -> None:
        """Tell the profiler that a step is done."""
        if self._profile is not None:
            self._profile.step()
