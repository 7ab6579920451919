"""Saves the completed steps when something other than a training step fails, reports the reason, and ends the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepem.data.loader import GivenUpError, WorkerError
from deepem.train.preempt import Preemption
from deepem.utils.errors import InputError, of_environment, reason, warn
from deepem.utils.exit_codes import STOPPED


@contextmanager
def keeping_steps(save: Callable[[], bool], preemption: Preemption) -> Iterator[None]:
    """Wrap the training loop: on an error, save the completed steps, then raise the error.

    Args:
        save: Writes a checkpoint of the completed steps if there is none yet. Returns whether the run has a newer
            checkpoint than the one it started from.
        preemption: Told that the run is about to end once something fails.

    Raises:
        SystemExit: with the exit code of a run that is worth queuing again. Either the run was asked to stop while it
            waited for data, or a worker died and the run has saved progress since its start.
        InputError: a worker died before the run made any progress.
    """
    try:
        yield
    except Exception as error:
        preemption.leave()
        advanced = _saved(save, error)
        if isinstance(error, GivenUpError):
            warn(f"stopped while waiting for data: {error}")
            raise SystemExit(STOPPED) from None
        if not isinstance(error, WorkerError):
            raise
        if advanced or preemption.requested:
            warn(f"{reason(error)}; the steps are saved, and the same command goes on")
            raise SystemExit(STOPPED) from error
        raise _of_workers(error) from error


@contextmanager
def living_workers() -> Iterator[None]:
    """Wrap the start of the workers.

    Raises:
        InputError: a worker died or hangs.
    """
    try:
        yield
    except WorkerError as error:
        raise _of_workers(error) from error


def _of_workers(error: WorkerError) -> InputError:
    wants = "workers that keep running: --num_workers 0 shows what fails in them, and fewer workers need less memory"
    return InputError("--num_workers", reason(error), wants)


def _saved(save: Callable[[], bool], error: Exception) -> bool:
    """Save, and return whether the checkpoint advanced. An error while saving only warns: the first error is raised."""
    try:
        return save()
    except Exception as failure:  # noqa: BLE001 - a device that is lost, say, cannot be read any more
        told = failure if isinstance(failure, InputError) else of_environment(failure)
        if str(told or failure) != str(error):
            warn(f"the steps since the last checkpoint are lost: {told or reason(failure)}")
        return False
