"""The queue: task-queue's, ``fq://folder`` on a file system that all machines see, or ``sqs://`` by the same code."""

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
"""task-queue chooses among a part of the entries, the first 250 that are not leased."""

YOUNG_S = 2.0
"""An entry so young may still be written."""


def open_queue(queue: str, does: Callable[..., object], make: bool = False) -> Any:
    """A queue whose tasks call a function.

    Args:
        queue: Its address.
        does: The function, one of a module, found by its name on every machine.
        make: Make the folder of a queue that is not there.

    Raises:
        InputError: it is none, cannot be opened, or is not there; or task-queue is not installed.
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
    except Exception as error:  # each protocol raises errors of its own
        if (told := store_fault("queue", error)) is not None:
            raise told from error
        raise InputError("queue", f"{queue}, which cannot be opened ({reason(error)})", wants) from error


def require(queue: str) -> None:
    """Refuse a queue whose folder is not there (any more): opening it would make an empty one."""
    if queue.startswith("fq://") and not Path(queue.removeprefix("fq://"), "queue").is_dir():
        raise InputError("queue", f"{queue}, which is not there", "a queue that tasks were put into")


def remove_empty(queue: str) -> list[str]:
    """Remove entries without contents from a queue on disk: task-queue would try to read them for ever.

    Looked at are those that the next lease may take. The tasks are still in their plan, to be enqueued again.
    """
    if not queue.startswith("fq://"):
        return []
    found = []
    with os.scandir(Path(queue.removeprefix("fq://"), "queue")) as entries:
        for entry in itertools.islice(entries, LEASABLE):
            with suppress(OSError):  # another worker was quicker
                if entry.is_file() and entry.stat().st_size == 0 and time.time() - entry.stat().st_mtime > YOUNG_S:
                    Path(entry.path).unlink()
                    found.append(entry.name)
    return found


def put(queue: str, does: Callable[[str, int], object], folder: str, numbers: Iterable[int]) -> int:
    """Put calls ``does(folder, number)`` into a queue, made as they go in, and return how many.

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
