"""What workers do: lease tasks from a queue, do them, and mark them as done.

A leased task that is not done when its time is up is leased to the next worker, so that killing one loses nothing.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import sys
import time
from typing import Any

from deepem.blocks import queue as queues
from deepem.blocks.plan import Plan
from deepem.blocks.programs import Tasks, program
from deepem.io.faults import store_fault, unwritable
from deepem.utils.errors import InputError

TRIES = 3
WAIT_S = 2.0
LOOK_AGAIN_S = 2.0


@functools.lru_cache(maxsize=1)
def tasks_of(folder: str, _where: str) -> Tasks:
    """What does the tasks of a plan, kept for the next one; `_where` is the working directory, which paths rely on."""
    plan = Plan.load(folder)
    return program(plan.program).open_tasks(plan)


def do_task(folder: str, number: int) -> bool:
    """Do a task of the plan in a folder, unless it is done and its output holds; return whether it was done now.

    What cannot be read or written is tried again a few times. Then the reason is noted. A task whose phase is closed
    is left alone: it is put into the queue again when the phases before are done.

    Raises:
        InputError: the plan's folder cannot take even that.
    """
    plan = Plan.load(folder)
    if number not in range(len(plan)):
        tell(f"task {number}: left by an older plan of {folder}, which has {len(plan)} tasks now")
        return False
    markers, at = plan.markers, plan.phase_of(number)
    opening = markers.opening(at)
    if opening is None:
        tell(f"task {number}: its turn has not come")
        return False
    tasks, phase = tasks_of(folder, os.getcwd()), plan.phases[at].name
    if (marker := markers.marker(number)) is not None and tasks.holds(phase, marker):
        return False
    for trial in itertools.count(1):
        try:
            made = tasks.do(phase, plan.box(number), f"task {number} of {len(plan)}")
            if markers.opening(at) != opening:  # what it read was found damaged meanwhile
                return False
            markers.set_done(number, made)
        except (InputError, OSError) as error:
            line = f"task {number}: {error}"
            tell(line + ("; trying again" if trial < TRIES else ""))
            if trial < TRIES:
                time.sleep(WAIT_S * (trial - 1))
                continue
            markers.set_failed(number, line)
            return False
        return True
    raise AssertionError


def damaged(plan: Plan) -> list[int]:
    """The tasks that are marked as done whose output is not what the marker says: everything is read."""
    tasks, markers = tasks_of(plan.folder, os.getcwd()), plan.markers
    return [number for number in sorted(plan.done()) if not _holds(plan, tasks, number, markers.marker(number))]


def _holds(plan: Plan, tasks: Tasks, number: int, marker: dict[str, Any] | None) -> bool:
    return marker is not None and tasks.holds(plan.phases[plan.phase_of(number)].name, marker)


def enqueue(plan: Plan, queue: str) -> int:
    """Put the tasks that can be done now into a queue, and return how many: when a phase is done, those of the next.

    A task may be in the queue twice: the second time it is found done.

    Raises:
        InputError: the queue cannot be opened or written to.
    """
    queues.open_queue(queue, do_task, make=True)  # a bad address is refused before the phase is opened
    return queues.put(queue, do_task, plan.folder, plan.offer())


def work(queue: str, lease_s: int, stay: bool = False) -> int:
    """Do tasks until the queue is empty, those leased to others included, and return how many were taken from it.

    Args:
        queue: The queue.
        lease_s: Seconds after which a task is taken for lost and given to another worker.
        stay: Wait for more when the queue is empty.

    Raises:
        InputError: the queue vanishes, or cannot be written to; what was done is done.
    """
    tasks = queues.open_queue(queue, do_task)
    from taskqueue import QueueEmptyError

    taken = 0
    while True:
        try:
            queues.require(queue)
            for entry in queues.remove_empty(queue):
                tell(f"queue entry {entry}: empty, left by a full disk or a process that was killed; removed")
            task = tasks.lease(seconds=lease_s)
        except QueueEmptyError:
            if not stay and tasks.enqueued == 0:
                return taken
            time.sleep(LOOK_AGAIN_S * random.random())  # workers are to come at different moments
            continue
        except OSError as error:
            queues.require(queue)
            if isinstance(error, FileNotFoundError):  # another worker was quicker
                continue
            raise unwritable(queue, error) from error
        except Exception as error:
            raise (store_fault(queue, error) or error) from error
        task.execute()
        taken += 1
        queues.require(queue)
        try:
            tasks.delete(task)
        except Exception as error:
            if isinstance(error, OSError) or store_fault(queue, error) is not None:
                raise unwritable(queue, error) from error
            raise
        tell(f"{tasks.enqueued} tasks left in the queue")


def tell(line: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
