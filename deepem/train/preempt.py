"""Handles requests to stop: from SLURM before preemption, from Ctrl-C, or from a closed terminal."""

from __future__ import annotations

import signal
import threading
from time import monotonic
from types import FrameType
from typing import Any

from deepem.utils.errors import warn
from deepem.utils.exit_codes import STOPPED

__all__ = ["STOPPED", "Preemption"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)

SAME_S = 2.0
"""Signals within this many seconds of the first belong to the same request: schedulers signal every process, and
launchers forward the signal too.
"""


class Preemption:
    """Within this context, a stop signal ends the process with the exit code of a run that was asked to stop.

    Once the run has steps to lose (`defer`), a first signal is only noted, and the loop finishes its step. A second
    signal ends the process with the same exit code. While the run saves and exits (`leave`), signals have no effect
    beyond being noted. A process that exits with this code ignores signals until its end, so that none can change the
    code.

    SIGHUP stays ignored if it was ignored before, as under nohup.

    Args:
        asked: The event that notes the request; other code may set it too.
    """

    def __init__(self, asked: threading.Event | None = None) -> None:
        self._asked = asked or threading.Event()
        self._defers = self._leaves = False
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._asked.is_set()

    def defer(self) -> None:
        """From here on, a request takes effect at the end of a step."""
        self._defers = True

    def leave(self) -> None:
        """From here on, a request has no effect: the run is about to save and end."""
        self._leaves = True

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():  # only the main thread can install signal handlers
            caught = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        stopped = isinstance(error, SystemExit) and error.code == STOPPED
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if stopped else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self._defers:
            warn(f"{name}: ended before the first step")
            raise SystemExit(STOPPED)
        if not self.requested:
            self._asked.set()
            self._since = monotonic()
            if not self._leaves:
                warn(f"{name}: saving after this step; once more ends at once")
        elif not self._leaves and monotonic() - self._since > SAME_S:
            warn(f"{name}: ended without saving")
            raise SystemExit(STOPPED)
