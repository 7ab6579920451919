"""Among several processes, only the process where an error began reports it.

When one process fails, the others lose their connection to it and fail too, each with a traceback about a closed
connection that explains nothing. The launcher ends all processes as soon as one has ended, so the others only have to
wait before they report their own errors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepem.utils.errors import InputError
from deepem.utils.exit_codes import STOPPED

LOST_S = 6.0
"""A process that lost another waits this long before it reports that. Launchers check their processes every 2 s or more
often.
"""

SAME_S = 1.0
"""Ranks other than 0 wait this long before they report bad input, because rank 0 usually finds the same."""


@contextmanager
def first_cause_speaks(asked: Callable[[], bool]) -> Iterator[None]:
    """Wrap all that one of several processes does; a process on its own is not affected.

    Args:
        asked: Returns whether this process has been asked to stop.

    Raises:
        SystemExit: another process is lost, and this process was asked to stop: the launcher noticed the loss first.
        RuntimeError: another process is lost, and no launcher ended this one in time.
    """
    if "RANK" in os.environ:
        with _shown_by_torchrun(), _patient(int(os.environ["RANK"]), asked):
            yield
    else:
        yield


@contextmanager
def _patient(rank: int, asked: Callable[[], bool]) -> Iterator[None]:
    try:
        yield
    except InputError:
        time.sleep(SAME_S if rank else 0)
        raise
    except Exception as error:
        if not _is_loss(error):
            raise
        if asked():
            raise SystemExit(STOPPED) from error
        time.sleep(LOST_S)
        raise RuntimeError(f"rank {rank}: another rank ended, or did not answer within --rank_timeout") from error


def _is_loss(error: Exception) -> bool:
    """Whether an error means that another process does not answer; gloo has no exception type of its own for this."""
    from torch.distributed import DistError

    words = ("third_party/gloo", "pair closure")  # gloo's source path, or a time-out seen by another thread
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


@contextmanager
def _shown_by_torchrun() -> Iterator[None]:
    """Make torchrun show the traceback in its summary, which is the last thing on the screen."""
    try:
        yield
    except Exception as error:
        if "TORCHELASTIC_ERROR_FILE" in os.environ and not isinstance(error, InputError):
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        raise
