"""Workers lease tasks from a queue, do them, and mark them as done.

If a task is not done when its lease ends, the next worker leases it. Killing a worker therefore loses no task.
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
    """Return the object that does a plan's tasks, cached; paths depend on `_where`, the working directory."""
    plan = Plan.load(folder)
    return program(plan.program).open_tasks(plan)


def do_task(folder: str, number: int) -> bool:
    """Do a task unless it is done already and its output is intact; return whether it was done now.

    Reading and writing are tried a few times; if they still fail, the reason is recorded. A task whose phase is closed
    is skipped: it is queued again when the earlier phases are done.

    Raises:
        InputError: the reason cannot be written to the plan's folder.
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
            if markers.opening(at) != opening:  # meanwhile, a task of an earlier phase turned out to be damaged
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
    """Return the tasks marked as done whose output does not match the marker. Reads the output of all tasks."""
    tasks, markers = tasks_of(plan.folder, os.getcwd()), plan.markers
    return [number for number in sorted(plan.done()) if not _holds(plan, tasks, number, markers.marker(number))]


def _holds(plan: Plan, tasks: Tasks, number: int, marker: dict[str, Any] | None) -> bool:
    return marker is not None and tasks.holds(plan.phases[plan.phase_of(number)].name, marker)


def enqueue(plan: Plan, queue: str) -> int:
    """Put the tasks that can be done now (those of the first unfinished phase) into a queue, and return how many.

    A task may be in the queue twice; the second time, the worker finds it done.

    Raises:
        InputError: the queue cannot be opened or written to.
    """
    queues.open_queue(queue, do_task, make=True)  # refuse a bad address before opening the phase
    return queues.put(queue, do_task, plan.folder, plan.offer())


def work(queue: str, lease_s: int, stay: bool = False) -> int:
    """Do tasks until the queue is empty and no task is leased to others; return how many tasks were taken from it.

    Args:
        queue: The queue.
        lease_s: Seconds after which a task counts as lost and goes to another worker.
        stay: Wait for more tasks when the queue is empty.

    Raises:
        InputError: the queue disappears or cannot be written to. Finished tasks stay done.
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
            time.sleep(LOOK_AGAIN_S * random.random())  # so that workers poll at different times
            continue
        except OSError as error:
            queues.require(queue)
            if isinstance(error, FileNotFoundError):  # another worker was faster
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
    """Write one line to stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
