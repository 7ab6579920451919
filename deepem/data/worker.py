"""Make batches for the loader, in worker processes or, with `num_workers=0`, in the loader's own process.

This module does not import torch, so spawned workers start quickly and stay small.
"""

from __future__ import annotations

import faulthandler
import inspect
import math
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from deepem.data.arrays_given import SAMPLER, require_sample
from deepem.data.orders import Ahead, Order, Orders
from deepem.data.slots import IN_USE, Slots
from deepem.data.volume import Array, Shared
from deepem.utils.allocator import keep_memory
from deepem.utils.errors import InputError, unreadable

PHASES = {"train": 0, "val": 1, "modifier": 2, "calibrate": 3, "calibrate modifier": 4}
"""The number of each phase, which is part of the seed of its samples."""

ALIGNMENT = 64


def generator(seed: int, phase: str, index: int) -> np.random.Generator:
    """Return the random generator of one sample, a pure function of the run's seed, the phase and the index."""
    return np.random.default_rng([seed, PHASES[phase], index])


Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and dtype of each array of a sample, by key."""


@dataclass
class Stream:
    """An endless sequence of samples, each of which can be made on its own.

    Attributes:
        exact: Ignore the sampler's layout, because an augmentation turns uint8 images into floats.
    """

    sampler: Callable[..., Mapping[str, Array]]
    seed: int
    phase: str
    exact: bool = False

    def name(self, index: int) -> str:
        """Return a sample's name for error messages; it has all that is needed to make the sample again."""
        return f"{self.phase} sample {index} of seed {self.seed}"

    def fetch(self, index: int) -> None:
        """Read ahead what a sample needs. Ignore errors here: they are raised when the sample is made."""
        if (fetch := getattr(self.sampler, "fetch", None)) is not None:
            with suppress(Exception):
                fetch(generator(self.seed, self.phase, index))

    @property
    def layout(self) -> Layout | None:
        """The sampler's layout if the sampler can write into given arrays, else None."""
        return None if self.exact else self._layout

    @cached_property
    def _layout(self) -> Layout | None:
        writes = "out" in inspect.signature(self.sampler).parameters  # a subclass may override __call__ without `out`
        return getattr(self.sampler, "layout", None) if writes else None

    def sample(self, index: int, *out: Mapping[str, Array]) -> Mapping[str, Array]:
        """Make one sample, written into `out` if given; add the sample's name to any error."""
        try:
            sample = self.sampler(generator(self.seed, self.phase, index), *out)
            require_sample(sample, SAMPLER)
            return sample
        except InputError as error:
            raise InputError(f"{error.where} ({self.name(index)})", error.got, error.wants) from error
        except SystemExit as error:
            where = f"sampler or augment ({self.name(index)})"
            raise InputError(where, f"sys.exit({error.code})", "a sample, or an exception that says why not") from error
        except OSError as error:
            raise unreadable(f"sampler or augment ({self.name(index)})", error) from error
        except Exception as error:
            _note(error, f"in {self.name(index)}")
            raise


def _note(error: Exception, text: str) -> None:
    """Add a line to an error's printed message."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    elif error.__cause__ is None:  # Python 3.10
        error.__cause__ = RuntimeError(text)


@dataclass(frozen=True)
class Part:
    """Where one array of a batch is stored: at `offset` in the batch's memory, or, if constant, only as `value`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0
    value: float | int | None = None


def make(
    stream: Stream,
    indices: Sequence[int],
    allocate: Callable[[int], Array],
    begin: Callable[[int], None] = lambda index: None,
) -> dict[str, Part]:
    """Make one batch (N, C, Z, Y, X) in one piece of memory, and return where each of its arrays is stored.

    A sampler with a `layout` writes its samples straight into this memory; samples of other samplers are copied into
    it. If a sample's dtypes differ from the layout, this batch and all later ones are copied. An array with the same
    value in all samples (strides of 0) is not written.

    Args:
        stream: Makes the samples.
        indices: Indices of the samples. All samples have the same keys and shapes; mixed dtypes are promoted to one.
        allocate: Returns an array of at least the given number of bytes.
        begin: Called with each index before its sample is made.
    """
    layout = stream.layout
    samples: list[Mapping[str, Array]] = []
    if layout is None:
        for index in indices:
            begin(index)
            samples.append(stream.sample(index))
        layout = _layout_of(samples)
    parts, memory = _place(layout, len(indices), allocate)
    batch = {key: view(memory, part) for key, part in parts.items()}
    targets = [{key: array[i] for key, array in batch.items()} for i in range(len(indices))]
    if not samples:
        for index, target in zip(indices, targets, strict=True):
            begin(index)
            samples.append(stream.sample(index, target))
    if any(sample[key].dtype != part.dtype for sample in samples for key, part in parts.items()) and stream.layout:
        stream.exact = True
        return make(stream, indices, allocate, begin)
    for key, part in parts.items():
        value = _one_value(sample[key] for sample in samples)
        if value is not None:
            parts[key] = replace(part, value=value)
            continue
        for sample, target in zip(samples, targets, strict=True):
            if sample[key] is not target[key]:
                target[key][...] = sample[key]
    return parts


def _layout_of(samples: list[Mapping[str, Array]]) -> Layout:
    layout = {}
    for key, first in samples[0].items():
        arrays = [sample[key] for sample in samples]
        if any(array.shape != first.shape for array in arrays):
            shapes = " and ".join(map(str, sorted({array.shape for array in arrays})))
            raise InputError(f"{SAMPLER} {key}", f"samples of shapes {shapes}", "one shape for all samples of a batch")
        layout[key] = first.shape, np.result_type(*arrays)
    return layout


def _place(layout: Layout, count: int, allocate: Callable[[int], Array]) -> tuple[dict[str, Part], Array]:
    """Lay the arrays of a batch out one after another; return their places and the memory for them."""
    parts, end = {}, 0
    for key, (shape, dtype) in layout.items():
        parts[key] = Part((count, *shape), dtype, end)
        end += -(-count * math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return parts, allocate(end)


def _one_value(arrays: Iterable[Array]) -> Any:
    """Return the value that all arrays hold throughout, or None if they do not hold a single value."""
    values = {array.flat[0].item() if array.size and not any(array.strides) else None for array in arrays}
    return values.pop() if len(values) == 1 else None


def view(memory: Array, part: Part) -> Array:
    """Return a view of one array of a batch in the batch's memory."""
    size = math.prod(part.shape) * part.dtype.itemsize
    return memory[part.offset : part.offset + size].view(part.dtype).reshape(part.shape)


@dataclass(frozen=True)
class Done:
    """A worker's message: a batch is ready in a slot.

    Attributes:
        parts: Where the batch's arrays are stored; None if the same as in this worker's previous batch.
        fresh: Size of the slot if it is new (the slot's file descriptor follows this message), else None.
    """

    number: int
    parts: dict[str, Part] | None
    slot: int
    fresh: int | None


@dataclass(frozen=True)
class Failed:
    """A worker's message: making a batch raised an error."""

    number: int
    error: Exception
    trace: str


def work(stream: Stream, loader: Connection, beats: Shared, rank: int) -> None:
    """Make the batches that the loader orders, until it sends None or its process is gone.

    Before each sample, the worker writes a heartbeat into shared memory: a growing counter and the sample's index.
    """
    _settle()
    parent = os.getppid()
    beat = beats.array[rank]
    beat[0] += 1
    slots = Slots()
    orders = Orders(loader, parent)
    ahead = Ahead(stream.fetch) if getattr(stream.sampler, "fetch", None) is not None else None
    told: dict[str, Part] | None = None
    while (order := orders.next()) is not None:
        if ahead is not None:
            ahead.expect([*order.indices, *orders.upcoming()])
        answer = _make(stream, order, slots, beat)
        if isinstance(answer, Done):
            if answer.parts == told:
                answer = replace(answer, parts=None)
            else:
                told = answer.parts
        loader.send(answer)
        if isinstance(answer, Done) and answer.fresh is not None:
            with slots.files.pop(answer.slot) as file:
                reduction.send_handle(loader, file.fileno(), parent)


def _make(stream: Stream, order: Order, slots: Slots, beat: Array) -> Done | Failed:
    def started(index: int) -> None:
        beat[:] = beat[0] + 1, index

    try:
        parts = make(stream, order.indices, slots.take, started)
        slots.memory[slots.last][IN_USE] = 1
        fresh = len(slots.memory[slots.last]) if slots.last in slots.files else None
        return Done(order.number, parts, slots.last, fresh)
    except Exception as error:  # noqa: BLE001 - it is raised again by the loader
        return Failed(order.number, _portable(error), traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """Return the error if it can be pickled, else a RuntimeError with its last line."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever an exception's own pickling raises
        return RuntimeError("".join(traceback.format_exception_only(type(error), error)).strip())
    return error


def _settle() -> None:
    """Set up a worker process: use one thread, keep freed memory, and ignore signals (the loader stops workers)."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(0)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    keep_memory()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)
    if sys.__stderr__ is not None:  # in a notebook, sys.stderr has no file descriptor
        faulthandler.register(signal.SIGUSR2, sys.__stderr__, all_threads=True)
