"""Batches in their order, made ahead of time by worker processes.

Batch i holds the samples i * batch_size, ..., each a pure function of (seed, phase, index). So the stream is the same
for any number of workers, and it can go on from any batch.

Why not torch's DataLoader? It copies each sample several times and allocates new memory for it. With two workers this
loader gave 11x its samples per second without augmentation, 8x with flips, 3.2x with grayscale and warp, 2.7x with all
of mip1; ``python scripts/benchmark/sampling.py loader`` measures it.

Each worker has a pipe and its own shared memory, divided into slots. It writes a batch into a slot, and the tensors of
the batch are views of that slot, not copies. The slot becomes free when those tensors are gone::

    loader  --Order(batch 7)-->  worker: makes its samples in slot 0, and marks that it is in use
            <--Done(slot 0)----
            (its tensors are gone: marks that slot 0 is free)
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from multiprocessing import reduction, util
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepem.data.orders import POLL_S, Order
from deepem.data.slots import IN_USE
from deepem.data.volume import Array, Shared, map_file
from deepem.data.worker import Done, Failed, Part, Stream, generator, make, view, work
from deepem.utils.errors import InputError

__all__ = ["GivenUpError", "WorkerError", "batches", "generator"]

AHEAD = 3
"""Batches under way or waiting, per worker."""

PATIENCE_S = 5.0
"""How long a batch is still waited for when the caller wants to wait no longer."""

STARTUP_S = 300.0
"""How long a worker may take to start: a spawned one imports everything first."""

Batch = dict[str, Tensor]


class WorkerError(RuntimeError):
    """A worker process died or hangs."""


class GivenUpError(RuntimeError):
    """The caller wanted to wait no longer for a batch."""


class _Trace(Exception):
    """A traceback from another process, as text: printed as the cause of an error, never raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def batches(
    sampler: Callable[[np.random.Generator], Mapping[str, Array]],
    *,
    seed: int,
    phase: str,
    start: int,
    stop: int,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    context: str | None = None,
    worker_timeout: float = 60.0,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """The batches start, ..., stop - 1: tensors (N, C, Z, Y, X) by key.

    Grey values that are bytes in the volumes stay bytes here; `deepem.train.transfer.DeviceBatches` makes them float32.

    Args:
        sampler: Makes a sample from a generator.
        seed: Of the run.
        phase: One of `deepem.data.worker.PHASES`.
        start: The first batch.
        stop: One past the last batch.
        batch_size: Samples of a batch over all ranks: rank r has the samples r, r + world, ... of each batch.
        num_workers: Worker processes; with 0 batches are made in this process.
        rank: This process among those that train together.
        world: How many those are.
        pin_memory: Copy each batch into page-locked memory.
        context: How workers start, fork or spawn; fork where the system has it (Linux).
        worker_timeout: Seconds after which a worker that has not begun another sample counts as hanging.
        give_up: Asked while a batch is waited for: whether to end that after PATIENCE_S.

    An array that is one value throughout (a mask of ones) is a tensor whose strides are all 0, the same in all batches:
    read it, do not write.

    Raises:
        InputError: batch_size is not a multiple of world. Also any error of a sample, as it was raised, with the
            sample's name, when its batch is due.
        WorkerError: a worker died (at once) or hangs.
        GivenUpError: see `give_up`.
    """
    if batch_size < 1 or batch_size % world:
        raise InputError("batch_size", batch_size, f"a positive multiple of the number of processes, {world}")
    stream = Stream(sampler, seed, phase)
    orders = ((i, range(i * batch_size + rank, (i + 1) * batch_size, world)) for i in range(start, stop))
    made: Iterator[Batch]
    if num_workers == 0:
        made = (_make(stream, indices) for _, indices in orders)
    else:
        made = _Pool(stream, min(num_workers, max(1, stop - start)), context, worker_timeout, give_up).run(orders)
    return map(_pinned, made) if pin_memory else made


def _make(stream: Stream, indices: range) -> Batch:
    memory: list[Array] = []

    def allocate(size: int) -> Array:
        memory.append(np.empty(size, np.uint8))
        return memory[-1]

    parts = make(stream, indices, allocate)
    return _tensors(parts, memory[-1])


def _tensors(parts: Mapping[str, Part], memory: Array) -> Batch:
    return {key: _tensor(part, memory) for key, part in parts.items()}


def _tensor(part: Part, memory: Array) -> Tensor:
    return torch.from_numpy(view(memory, part)) if part.value is None else _constant(part)


@lru_cache
def _constant(part: Part) -> Tensor:
    # not expand, which leaves an axis of length one its stride
    return torch.from_numpy(np.full(1, part.value, part.dtype)).as_strided(part.shape, (0,) * len(part.shape))


def _pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory; constants stay one value, which torch refuses to lock expanded."""
    return {key: tensor.pin_memory() if any(tensor.stride()) else tensor for key, tensor in batch.items()}


class _Worker:
    """A worker process as its loader sees it."""

    def __init__(self, stream: Stream, beats: Shared, rank: int, context: BaseContext) -> None:
        self.rank = rank
        self.pipe, theirs = context.Pipe()
        self.process: Any = context.Process(  # type: ignore[attr-defined]
            target=work, args=(stream, theirs, beats, rank), daemon=True, name=f"deepem-worker-{rank}"
        )
        self.process.start()
        theirs.close()
        self.pending = 0
        self.last_beat = 0
        self.silent_s = 0.0
        self._slots: dict[int, Array] = {}
        self._parts: dict[str, Part] = {}

    def order(self, number: int, indices: range) -> None:
        """Ask for a batch."""
        self.pending += 1
        self.pipe.send(Order(number, indices))

    def receive(self) -> tuple[int, Batch | Failed]:
        """An answer that is waiting in the pipe; EOFError or OSError if the worker went away."""
        answer: Done | Failed = self.pipe.recv()
        self.pending -= 1
        if isinstance(answer, Failed):
            return answer.number, answer
        if answer.fresh is not None:
            fd = reduction.recv_handle(self.pipe)
            self._slots[answer.slot] = map_file(fd, (answer.fresh,), np.uint8)
            os.close(fd)
        if answer.parts is not None:
            self._parts = answer.parts
        slot = self._slots[answer.slot]
        memory = np.frombuffer(slot.data, np.uint8)  # the base of this batch's tensors, only
        weakref.finalize(memory, _free, slot, os.getpid()).atexit = False
        return answer.number, _tensors(self._parts, memory)


def _free(slot: Array, owner: int) -> None:
    """Tell the worker that a slot is free, unless it is only a fork of the owner that lets go of it."""
    if os.getpid() == owner:
        slot[IN_USE] = 0


class _Pool:
    """Worker processes, and the batches that they have made before their turn."""

    def __init__(
        self, stream: Stream, size: int, context: str | None, timeout: float, give_up: Callable[[], bool]
    ) -> None:
        method = context or ("fork" if sys.platform == "linux" else "spawn")
        processes = multiprocessing.get_context(method)
        self.stream, self.timeout, self.give_up = stream, timeout, give_up
        self.beats = Shared.zeros((size, 2), np.int64)
        self.workers: list[_Worker] = []
        self.close = util.Finalize(self, _stop, (self.workers,), exitpriority=10)
        for rank in range(size):
            self.workers.append(_Worker(stream, self.beats, rank, processes))
        self.selector = selectors.DefaultSelector()
        for worker in self.workers:
            self.selector.register(worker.pipe, selectors.EVENT_READ, (worker, False))
            self.selector.register(worker.process.sentinel, selectors.EVENT_READ, (worker, True))
        self.ready: dict[int, Batch | Failed] = {}

    def run(self, orders: Iterator[tuple[int, range]]) -> Iterator[Batch]:
        """Batches in the order of their orders. The workers stop when this ends, for whatever reason."""
        try:
            due = [number for _ in range(AHEAD * len(self.workers)) for number in self._order(orders)]
            while due:
                batch = self._wait_for(due.pop(0))
                due += self._order(orders)
                yield batch
                del batch  # its slot is free as soon as the caller's tensors are gone
        finally:
            self.close()

    def _order(self, orders: Iterator[tuple[int, range]]) -> list[int]:
        """Hand the next order to the worker with least to do; its number, unless there is none left."""
        for number, indices in orders:
            worker = min(self.workers, key=lambda w: w.pending)
            try:
                worker.order(number, indices)
            except OSError:
                raise self._died(worker) from None
            return [number]
        return []

    def _wait_for(self, number: int) -> Batch:
        polls = 0
        while number not in self.ready:
            self._receive()
            polls += self.give_up()
            if polls * POLL_S > PATIENCE_S and number not in self.ready:
                raise GivenUpError(f"no batch {number} for {PATIENCE_S:.0f} s")
        batch = self.ready.pop(number)
        if isinstance(batch, Failed):
            raise batch.error from _Trace(batch.trace)
        return batch

    def _receive(self) -> None:
        """Take what has arrived; after POLL_S without anything, see who has stopped."""
        arrived = [key.data for key, _ in self.selector.select(POLL_S)]
        for worker, ended in sorted(arrived, key=lambda data: data[1]):  # what was sent before the end comes first
            if ended:
                raise self._died(worker)
            try:
                number, answer = worker.receive()
            except (EOFError, OSError):
                raise self._died(worker) from None
            self.ready[number] = answer
        if not arrived:
            self._listen()

    def _listen(self) -> None:
        """Count the seconds since each busy worker's heart last beat.

        Counted while waiting here, not read from a clock: when all processes are suspended, no time passes.
        """
        for worker in self.workers:
            beat, index = (int(n) for n in self.beats.array[worker.rank])
            silent = worker.pending > 0 and beat == worker.last_beat
            worker.silent_s = worker.silent_s + POLL_S if silent else 0.0
            worker.last_beat = beat
            if worker.silent_s >= (self.timeout if beat > 1 else max(self.timeout, STARTUP_S)):
                where = self.stream.name(index) if beat > 1 else "its start"
                _show_stack(worker.process.pid)
                raise WorkerError(f"worker {worker.rank} hangs: nothing for {worker.silent_s:.0f} s in {where}")

    def _died(self, worker: _Worker) -> WorkerError:
        worker.process.join(POLL_S)
        code = worker.process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
            if how == "SIGKILL":
                how += ", which is also how the system ends a process when memory is short"
        beat, index = (int(n) for n in self.beats.array[worker.rank])
        where = f"in or after {self.stream.name(index)}" if beat > 1 else "before its first sample"
        return WorkerError(f"worker {worker.rank} died {where}: {how}")


def _show_stack(pid: int) -> None:
    """Have a worker print where it is, on stderr; it does so even inside a call that never returns."""
    os.kill(pid, signal.SIGUSR2)
    time.sleep(0.5)


def _stop(workers: list[_Worker]) -> None:
    """End the workers: asked first, killed if they do not answer."""
    for worker in workers:
        with suppress(OSError):
            worker.pipe.send(None)
    for worker in workers:
        worker.process.join(POLL_S)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()
