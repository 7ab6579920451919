"""Clean up when a program is told to stop, so that no half-written files remain."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deepem.utils.errors import warn
from deepem.utils.exit_codes import STOPPED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stopping_tidily() -> Iterator[None]:
    """Within the block, turn stop signals into SystemExit with the exit code "worth running again".

    If SIGHUP was ignored, as under nohup, it stays ignored. Outside the main thread signals cannot be caught, so this
    does nothing.

    Raises:
        SystemExit: a signal arrived.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:  # ignore repeated signals
            signal.signal(other, signal.SIG_IGN)
        warn(f"{signal.Signals(number).name}: stopped; what was half written is removed")
        raise SystemExit(STOPPED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
