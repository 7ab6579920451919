"""How many worker processes the limit of open files allows."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from deepem.utils.errors import warn

FILES_OF_A_WORKER = 8
"""Open files of the loader for one worker: its pipe, its process and the shared memory of its batches."""

RESERVE = 24
"""Open files for everything else: checkpoints, logs, volumes, and the workers of an evaluation."""


def workers_allowed(wanted: int, *, told: bool) -> int:
    """Return how many of the wanted workers the limit of open files allows; with `told`, warn if these are fewer."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    allowed = max(0, min(wanted, (limit - _open_now() - RESERVE) // FILES_OF_A_WORKER))
    if told and allowed < wanted:
        warn(f"num_workers: {allowed} instead of {wanted}: the limit of {limit} open files allows no more (ulimit -n)")
    return allowed


def _open_now() -> int:
    listed = next(path for path in ("/proc/self/fd", "/dev/fd") if Path(path).is_dir())
    return len(os.listdir(listed))
