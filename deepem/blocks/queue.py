"""The queue, from the package task-queue: ``fq://folder`` on a shared file system, or ``sqs://`` with the same code."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from deepem.io.faults import store_fault, unwritable
from deepem.utils.errors import InputError, reason

AT_ONCE = 1000

LEASABLE = 1000
"""task-queue leases one of the first 250 entries that are not leased."""

YOUNG_S = 2.0
"""An entry younger than this may still be incomplete."""


def open_queue(queue: str, does: Callable[..., object], make: bool = False) -> Any:
    """Open a queue whose tasks call a function.

    Args:
        queue: The address.
        does: A module-level function, which every machine finds by its name.
        make: Create the folder of the queue if it does not exist.

    Raises:
        InputError: the address is invalid, the queue cannot be opened or does not exist, or task-queue is not
            installed.
    """
    try:
        from taskqueue import TaskQueue, queueable
    except ModuleNotFoundError as error:
        raise InputError("queue", f"no package {error.name}", "it installed: pip install 'deepem[queue]'") from error
    wants = "fq://FOLDER or sqs://QUEUE"
    if not queue.startswith(("fq://", "sqs://", "https://sqs.")) or queue.endswith("://"):
        raise InputError("queue", queue, wants)
    queueable(does)
    if not make:
        require(queue)
    try:
        return TaskQueue(queue, progress=False)
    except Exception as error:  # each protocol raises its own errors
        if (told := store_fault("queue", error)) is not None:
            raise told from error
        raise InputError("queue", f"{queue}, which cannot be opened ({reason(error)})", wants) from error


def require(queue: str) -> None:
    """Refuse a queue whose folder does not exist (any more); opening it would create an empty queue."""
    if queue.startswith("fq://") and not Path(queue.removeprefix("fq://"), "queue").is_dir():
        raise InputError("queue", f"{queue}, which is not there", "a queue that tasks were put into")


def remove_empty(queue: str) -> list[str]:
    """Remove empty entries from a queue on disk; task-queue would try to read them forever.

    Only the entries that the next lease may take are checked. Their tasks remain in the plan and can be enqueued again.
    """
    if not queue.startswith("fq://"):
        return []
    found = []
    with os.scandir(Path(queue.removeprefix("fq://"), "queue")) as entries:
        for entry in itertools.islice(entries, LEASABLE):
            with suppress(OSError):  # another worker was faster
                if entry.is_file() and entry.stat().st_size == 0 and time.time() - entry.stat().st_mtime > YOUNG_S:
                    Path(entry.path).unlink()
                    found.append(entry.name)
    return found


def put(queue: str, does: Callable[[str, int], object], folder: str, numbers: Iterable[int]) -> int:
    """Put calls ``does(folder, number)`` into a queue, generated on the fly, and return how many.

    Raises:
        InputError: the queue cannot be opened or written to.
    """
    tasks, count = open_queue(queue, does, make=True), 0
    numbers = iter(numbers)
    while some := [partial(does, folder, number) for number in itertools.islice(numbers, AT_ONCE)]:
        try:
            tasks.insert(some)
        except Exception as error:
            if isinstance(error, OSError) or store_fault(queue, error) is not None:
                raise unwritable(queue, error) from error
            raise
        count += len(some)
    return count
