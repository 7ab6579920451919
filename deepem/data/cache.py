"""Caches of chunks read from disk: one cache of all chunks, shared by all workers, or one of recent chunks per worker.

`share` chooses. If all arrays together fit into the cache, each array gets shared memory of its full size, which the
workers fill chunk by chunk; a patch is then a view of it, as with arrays in memory. Pages take no memory until a chunk
is written to them. Otherwise each worker keeps its most recently used chunks, within its part of the cache, and
assembles patches from them.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from deepem.data.drawn import Array, Drawn
from deepem.data.orders import AHEAD
from deepem.data.shared import Shared
from deepem.utils.geometry import Box, Vec3, vec3

Index = tuple[int, ...]

AT_ONCE = 16
"""Number of chunks that are requested from a remote store at the same time."""

EVALUATION = 8
"""Evaluation, whose workers run beside those of training, gets 1 / this of the cache."""


class Cache(Protocol):
    """Protocol: a cache of the chunks of one array."""

    def get(self, array: Drawn, box: Box) -> Array:
        """Return a box (C, z, y, x); read chunks that are not cached."""

    def fetch(self, array: Drawn, box: Box) -> None:
        """Read the chunks of a box that are not cached."""

    def part(self, array: Drawn, box: Box) -> float:
        """Return the part of this process' cache that the chunks of a box take; 0 if they all have their place."""

    def complete(self) -> bool:
        """Whether all chunks of the array are cached, and will stay."""


Wanted = Sequence[tuple[Drawn, Box]]
"""The boxes that a sample needs."""


def has_room_ahead(wanted: Wanted) -> bool:
    """Whether there is room for a sample that is read ahead, for those read ahead before it, and for the current one.

    Without room, they would drop each other's chunks, which would then be read twice.
    """
    return (AHEAD + 1) * sum(array.cache.part(array, box) for array, box in wanted if array.cache is not None) <= 1


def fetch(wanted: Wanted) -> None:
    """Read ahead the chunks that a sample needs, if there is room for them."""
    if has_room_ahead(wanted):
        for array, box in wanted:
            if array.cache is not None:
                array.cache.fetch(array, box)


def share(train: Mapping[str, Any], val: Mapping[str, Any], room: int, workers: int) -> None:
    """Assign a cache to each array that is read from disk.

    Args:
        train: Training volumes by id, possibly nested as supersets.
        val: Validation volumes, likewise.
        room: Size of the cache in bytes, for all processes together.
        workers: Number of worker processes for training, and again for validation.
    """
    phases = [list(_drawn(train)), list(_drawn(val))]
    unique = {array.key: array for array in itertools.chain(*phases)}
    if sum(array.nbytes for array in unique.values()) <= room:
        caches: dict[object, Cache] = {key: Whole(array) for key, array in unique.items()}
        for array in itertools.chain(*phases):
            array.cache = caches[array.key]
        return
    for_val = room // EVALUATION if all(phases) else 0
    for arrays, part in zip(phases, (room - for_val, for_val or room), strict=True):
        recent, numbers = Recent(part // max(workers, 1)), itertools.count()
        ours: dict[object, Cache] = {}
        for array in arrays:
            array.cache = ours.setdefault(array.key, Kept(recent, next(numbers)))


def _drawn(volumes: Mapping[str, Any]) -> Iterator[Drawn]:
    for value in volumes.values():
        if isinstance(value, Drawn):
            yield value
        elif isinstance(value, Mapping):
            yield from _drawn(value)


class Whole:
    """A cache of all chunks of an array, shared by all processes.

    If two processes read the same chunk at the same time, both write the same bytes.
    """

    def __init__(self, array: Drawn) -> None:
        self._held = Shared.zeros(array.shape, array.dtype)
        grid = _span(array, Box((0, 0, 0), vec3(array.shape[1:])))
        self._there = Shared.zeros(tuple(len(r) for r in grid), np.uint8)

    def get(self, array: Drawn, box: Box) -> Array:
        """Return a box (C, z, y, x) as a view of the shared memory."""
        self.fetch(array, box)
        z, y, x = box.slices()
        found: Array = self._held.array[:, z, y, x]
        return found

    def fetch(self, array: Drawn, box: Box) -> None:
        """Read the chunks of a box that are not there yet."""
        z, y, x = _span(array, box)
        there = self._there.array[z.start : z.stop, y.start : y.stop, x.start : x.stop]
        if there.all():
            return
        first = np.array([z.start, y.start, x.start])

        def put(index: Index, chunk: Array) -> None:
            zz, yy, xx = _box_of(array, index).slices()
            self._held.array[:, zz, yy, xx] = chunk
            with _FENCE:  # memory barrier: write the voxels before the flag
                pass
            self._there.array[index] = 1

        _read_each(array, [tuple(at) for at in (np.argwhere(there == 0) + first).tolist()], put)

    def part(self, array: Drawn, box: Box) -> float:
        """Return 0: no chunk takes the place of another."""
        return 0

    def complete(self) -> bool:
        """Whether all chunks have been read."""
        return bool(self._there.array.all())


_FENCE = threading.Lock()


class Recent:
    """The most recently used chunks of this process, from several arrays.

    Args:
        limit: Maximum size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, Index], Array] = OrderedDict()
        self._coming: dict[tuple[int, Index], Future[Array]] = {}

    def each(
        self, array: Drawn, number: int, indices: Iterable[Index], use: Callable[[Index, Array], None] | None
    ) -> None:
        """Call `use` with each chunk; read missing chunks, unless another thread is reading them already."""
        mine: dict[Index, Future[Array]] = {}
        coming: list[tuple[Index, Future[Array]]] = []
        for index in indices:
            held = self._find((number, index), mine, coming)
            if held is not None and use is not None:
                use(index, held)

        def keep(index: Index, chunk: Array) -> None:
            self._keep((number, index), chunk, mine[index])
            if use is not None:
                use(index, chunk)

        try:
            _read_each(array, list(mine), keep)
        finally:
            for index, future in mine.items():  # after an error, waiting threads read these themselves
                if not future.done():
                    self._coming.pop((number, index), None)
                    future.cancel()
        for index, future in coming:
            chunk = array.read(_box_of(array, index)) if _failed(future) else future.result()
            if use is not None:
                use(index, chunk)

    def _find(self, key: tuple[int, Index], mine: dict[Index, Future[Array]], coming: list[Any]) -> Array | None:
        """Return a cached chunk, or record which thread reads it: this one (`mine`) or another (`coming`)."""
        with self._lock:
            held = self._chunks.get(key)
            if held is not None:
                self._chunks.move_to_end(key)
            elif key in self._coming:
                coming.append((key[1], self._coming[key]))
            else:
                mine[key[1]] = self._coming[key] = Future()
            return held

    def _keep(self, key: tuple[int, Index], chunk: Array, future: Future[Array]) -> None:
        with self._lock:
            if chunk.nbytes <= self.limit:
                self._chunks[key] = chunk
                self.bytes += chunk.nbytes
            while self.bytes > self.limit:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes
            del self._coming[key]
            future.set_result(chunk)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, (self.limit,)


def _failed(future: Future[Array]) -> bool:
    try:
        future.result()
    except BaseException:  # noqa: BLE001 - whatever it was, the other thread says so
        return True
    return False


class Kept:
    """The cache of one array within a `Recent`."""

    def __init__(self, recent: Recent, number: int) -> None:
        self.recent, self.number = recent, number

    def get(self, array: Drawn, box: Box) -> Array:
        """Return a box (C, z, y, x), assembled from chunks."""
        out = np.empty((array.shape[0], *box.size), array.dtype)

        def use(index: Index, chunk: Array) -> None:
            whole = _box_of(array, index)
            common = whole.intersect(box)
            assert common is not None
            z, y, x = common.shift(-b for b in box.begin).slices()
            zz, yy, xx = common.shift(-b for b in whole.begin).slices()
            out[:, z, y, x] = chunk[:, zz, yy, xx]

        self.recent.each(array, self.number, itertools.product(*_span(array, box)), use)
        return out

    def fetch(self, array: Drawn, box: Box) -> None:
        """Read the chunks of a box that are not cached."""
        self.recent.each(array, self.number, itertools.product(*_span(array, box)), None)

    def part(self, array: Drawn, box: Box) -> float:
        """Return the part of the worker's cache that the chunks of a box take."""
        chunks = math.prod(map(len, _span(array, box)))
        size = chunks * array.shape[0] * math.prod(array.chunks[0]) * array.dtype.itemsize
        return size / self.recent.limit if self.recent.limit else math.inf

    def complete(self) -> bool:
        """Return False: chunks may be dropped."""
        return False


def _read_each(array: Drawn, indices: list[Index], use: Callable[[Index, Array], None]) -> None:
    """Read chunks, several at a time from a remote store, and call `use` with each in the calling thread."""
    boxes = [_box_of(array, index) for index in indices]
    if not array.remote or len(indices) < 2:
        for index, box in zip(indices, boxes, strict=True):
            use(index, array.read(box))
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(indices))) as pool:
        for index, chunk in zip(indices, pool.map(array.read, boxes), strict=True):
            use(index, chunk)


def _span(array: Drawn, box: Box) -> tuple[range, range, range]:
    """Return the range of chunks along each axis that a box touches, counted from the array's first chunk."""
    chunks, begin = array.chunks
    z, y, x = (
        range((b + o) // n - o // n, (e + o - 1) // n - o // n + 1)
        for b, e, o, n in zip(*box, begin, chunks, strict=True)
    )
    return z, y, x


def _box_of(array: Drawn, index: Index) -> Box:
    """Return the box of a chunk, cropped to the array."""
    chunks, begin = array.chunks
    first = [(i + o // n) * n - o for i, o, n in zip(index, begin, chunks, strict=True)]
    low: Vec3 = vec3(max(b, 0) for b in first)
    high = vec3(min(b + n, whole) for b, n, whole in zip(first, chunks, array.shape[1:], strict=True))
    return Box(low, high)
