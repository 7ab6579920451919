"""A trace of some training steps, for chrome://tracing or Perfetto."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch.autograd import profiler

P = ParamSpec("P")
R = TypeVar("R")

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


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Name a function in traces; costs nothing while none is taken."""

    def named(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not profiler._is_profiler_enabled:
                return function(*args, **kwargs)
            with torch.profiler.record_function(name):
                return function(*args, **kwargs)

        return call

    return named
