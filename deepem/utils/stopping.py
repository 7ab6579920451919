"""Programs that are asked to stop tidy up first: nothing half-written stays behind."""

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
    """Within, a signal to stop ends the program as an exception would, with the code of a program worth running again.

    SIGHUP stays ignored where it was, as under nohup. Outside of the main thread, where signals cannot be caught, this
    does nothing.

    Raises:
        SystemExit: a signal came.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:  # once is enough
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
