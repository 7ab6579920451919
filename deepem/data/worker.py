"""The half of the loader that makes batches: in worker processes, or, without any, where it is called.

It needs no torch, so that spawned workers start quickly and stay small.
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
"""The number by which each stream of random numbers is seeded."""

ALIGNMENT = 64


def generator(seed: int, phase: str, index: int) -> np.random.Generator:
    """The random numbers of one sample: a pure function of the run's seed, the phase and the sample's index."""
    return np.random.default_rng([seed, PHASES[phase], index])


Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""The shape and the type of each array of a sample."""


@dataclass
class Stream:
    """An endless sequence of samples, each of which can be made alone.

    Attributes:
        exact: Grey values do not stay bytes on their way, whatever the sampler's layout: an augmentation makes floats.
    """

    sampler: Callable[..., Mapping[str, Array]]
    seed: int
    phase: str
    exact: bool = False

    def name(self, index: int) -> str:
        """How a sample is called in errors: with this it can be made again."""
        return f"{self.phase} sample {index} of seed {self.seed}"

    def fetch(self, index: int) -> None:
        """Read ahead what a sample needs. Whatever is wrong with it is told when it is made."""
        if (fetch := getattr(self.sampler, "fetch", None)) is not None:
            with suppress(Exception):
                fetch(generator(self.seed, self.phase, index))

    @property
    def layout(self) -> Layout | None:
        """The layout of a sampler that writes its samples where it is told to."""
        return None if self.exact else self._layout

    @cached_property
    def _layout(self) -> Layout | None:
        writes = "out" in inspect.signature(self.sampler).parameters  # a subclass may have a call of its own without it
        return getattr(self.sampler, "layout", None) if writes else None

    def sample(self, index: int, *out: Mapping[str, Array]) -> Mapping[str, Array]:
        """One sample, in `out` if the sampler takes it; errors name it."""
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
    """Add a line to what an error prints."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    elif error.__cause__ is None:  # Python 3.10
        error.__cause__ = RuntimeError(text)


@dataclass(frozen=True)
class Part:
    """Where one array of a batch lies: at an offset of the batch's memory, or nowhere if it is one value throughout."""

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
    """Make samples as one batch, (N, C, Z, Y, X) by key, in one piece of memory, and say where its arrays lie.

    A sampler with a `layout` writes its samples there itself; those of any other are copied there, and so are all from
    the first one on whose arrays turn out to be of other types. An array that is one value in all samples, of strides
    0, is not written.

    Args:
        stream: Whose samples.
        indices: Which samples. They have equal keys and shapes; integers of several sizes become the largest.
        allocate: Gives an array of at least so many bytes.
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
    """Where each array of a batch lies, one behind the other, and the memory for them."""
    parts, end = {}, 0
    for key, (shape, dtype) in layout.items():
        parts[key] = Part((count, *shape), dtype, end)
        end += -(-count * math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return parts, allocate(end)


def _one_value(arrays: Iterable[Array]) -> Any:
    """The value that constant arrays share, or None."""
    values = {array.flat[0].item() if array.size and not any(array.strides) else None for array in arrays}
    return values.pop() if len(values) == 1 else None


def view(memory: Array, part: Part) -> Array:
    """One array of a batch, in the batch's memory."""
    size = math.prod(part.shape) * part.dtype.itemsize
    return memory[part.offset : part.offset + size].view(part.dtype).reshape(part.shape)


@dataclass(frozen=True)
class Done:
    """A batch in a slot.

    Attributes:
        parts: Where its arrays lie; None if as in this worker's batch before.
        fresh: The size of a slot that is new: its file follows.
    """

    number: int
    parts: dict[str, Part] | None
    slot: int
    fresh: int | None


@dataclass(frozen=True)
class Failed:
    """What a worker sends in place of a batch."""

    number: int
    error: Exception
    trace: str


def work(stream: Stream, loader: Connection, beats: Shared, rank: int) -> None:
    """Make the batches that the loader asks for until it stops asking or is gone.

    Before each sample its index is written down, beside a count that thereby changes: the heartbeat.
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
    """The error if it survives the way to another process, else its last line."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever an exception's own pickling raises
        return RuntimeError("".join(traceback.format_exception_only(type(error), error)).strip())
    return error


def _settle() -> None:
    """Set up a worker process: one thread, memory kept, signals left to the loader's process, which stops it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(0)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    keep_memory()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)
    if sys.__stderr__ is not None:  # sys.stderr may be a notebook's, without a file
        faulthandler.register(signal.SIGUSR2, sys.__stderr__, all_threads=True)
