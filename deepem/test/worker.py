"""A worker: leases tasks of a queue and does them until none is left.

The queue is task-queue's: ``fq://folder`` on a file system that all machines see, or ``sqs://`` by the same code. A
leased task that is not done when its time is up is leased to the next worker, so that killing one loses nothing.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from deepem.io.faults import unwritable
from deepem.test.plan import Plan, do_task
from deepem.test.progress import tell
from deepem.utils.errors import InputError, reason

LOOK_AGAIN_S = 2.0
AT_ONCE = 1000


def open_queue(queue: str, make: bool = False) -> Any:
    """A queue.

    Raises:
        InputError: it is none, cannot be opened, or is a folder that is not there, which is made if asked for.
    """
    from taskqueue import TaskQueue, queueable

    wants = "fq://FOLDER or sqs://QUEUE"
    if not queue.startswith(("fq://", "sqs://", "https://sqs.")) or queue.endswith("://"):
        raise InputError("--queue", queue, wants)
    queueable(do_task)
    if not make:
        require(queue)
    try:
        return TaskQueue(queue, progress=False)
    except Exception as error:  # each protocol raises errors of its own
        raise InputError("--queue", f"{queue}, which cannot be opened ({reason(error)})", wants) from error


def require(queue: str) -> None:
    """Refuse a queue whose folder is not there (any more): opening it would make an empty one."""
    if queue.startswith("fq://") and not Path(queue.removeprefix("fq://"), "queue").is_dir():
        raise InputError("--queue", f"{queue}, which is not there", "the queue that enqueue.py made")


def enqueue(plan: Plan, queue: str, numbers: Iterable[int]) -> int:
    """Put tasks of a plan into a queue, and return how many; they are made as they go in."""
    tasks, count = open_queue(queue, make=True), 0
    numbers = iter(numbers)
    while some := [partial(do_task, plan.folder, number) for number in itertools.islice(numbers, AT_ONCE)]:
        try:
            tasks.insert(some)
        except OSError as error:
            raise unwritable(queue, error) from error
        count += len(some)
    return count


def work(queue: str, lease_s: int, stay: bool = False) -> int:
    """Do tasks until the queue is empty, those leased to others included, and return how many were taken from it.

    Args:
        queue: The queue.
        lease_s: Seconds after which a task is taken for lost and given to another worker.
        stay: Wait for more when the queue is empty.

    Raises:
        InputError: the queue vanishes, or cannot be written to; what was done is done.
    """
    from taskqueue import QueueEmptyError

    tasks = open_queue(queue)
    taken = 0
    while True:
        try:
            require(queue)
            task = tasks.lease(seconds=lease_s)
        except QueueEmptyError:
            if not stay and tasks.enqueued == 0:
                return taken
            time.sleep(LOOK_AGAIN_S * random.random())  # workers are to come at different moments
            continue
        except OSError as error:
            require(queue)
            if isinstance(error, FileNotFoundError):  # another worker was quicker
                continue
            raise unwritable(queue, error) from error
        task.execute()
        taken += 1
        require(queue)
        try:
            tasks.delete(task)
        except OSError as error:
            raise unwritable(queue, error) from error
        tell(f"{tasks.enqueued} tasks left in the queue")
