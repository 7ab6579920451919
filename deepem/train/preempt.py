"""Being asked to stop: by SLURM before it takes a node back, by a user with Ctrl-C."""

from __future__ import annotations

import signal
import threading
from time import monotonic
from types import FrameType
from typing import Any

from deepem.utils.errors import warn

STOPPED = 85
"""Exit code of a run that was asked to stop and saved: the same command goes on from there."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

SAME_S = 2.0
"""Signals so soon after the first are the same request: a scheduler signals every process, and a launcher passes on."""


class Preemption:
    """While it is entered, a signal ends the process with the code of a run that is asked to stop.

    Once the run has something to lose, a first signal is only noted, for the loop to finish its step; a second one
    ends the process.

    Args:
        asked: What notes the request; others may set it too.
    """

    def __init__(self, asked: threading.Event | None = None) -> None:
        self._asked = asked or threading.Event()
        self._defers = False
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._asked.is_set()

    def defer(self) -> None:
        """From here on a request waits for the end of a step."""
        self._defers = True

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be caught
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._defers:
            warn(f"{signal.Signals(number).name}: ended before the first step")
            raise SystemExit(STOPPED)
        if not self.requested:
            self._asked.set()
            self._since = monotonic()
            warn(f"{signal.Signals(number).name}: saving after this step; once more ends at once")
        elif monotonic() - self._since > SAME_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
