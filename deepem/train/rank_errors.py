"""Among several processes, the last word is that of the one where an error began.

When one process fails, the others lose it in the middle of what they do together and fail too, each with a traceback
about a closed connection that explains nothing. Whoever started them ends all as soon as one has ended, so that
it is enough for those others to wait with what they have to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepem.utils.errors import InputError
from deepem.utils.exit_codes import STOPPED

LOST_S = 6.0
"""How long a process waits that has lost another. Launchers look after their processes every 2 s or more often."""

SAME_S = 1.0
"""How long others than the first wait with bad input, which the first one mostly finds as well."""


@contextmanager
def first_cause_speaks(asked: Callable[[], bool]) -> Iterator[None]:
    """Around all that one process of several does; around a process alone it does nothing.

    Args:
        asked: Whether this process has been asked to stop.

    Raises:
        SystemExit: another process is lost, and this one was asked to stop: because of it, before it noticed itself.
        RuntimeError: another process is lost, and nobody has ended this one because of it.
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
    """Whether an error is that another process does not answer; gloo has no type of its own for it."""
    from torch.distributed import DistError

    words = ("third_party/gloo", "pair closure")  # its source file, in most; of a time-out that another thread saw
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


@contextmanager
def _shown_by_torchrun() -> Iterator[None]:
    """Have torchrun show a traceback in its summary, which comes last on the screen."""
    try:
        yield
    except Exception as error:
        if "TORCHELASTIC_ERROR_FILE" in os.environ and not isinstance(error, InputError):
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        raise
