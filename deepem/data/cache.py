"""Chunks that were read before: all of them, shared by all workers, or each worker's latest.

`share` decides. Where all arrays together fit into the room, each has memory of its full size that every worker sees
and fills, chunk by chunk; a patch is then a view of it, as with arrays in memory. Memory that no chunk was written to
takes no room. Otherwise each worker keeps the chunks that it used last, in its share of the room, and puts patches
together.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from deepem.data.drawn import Array, Drawn
from deepem.data.shared import Shared
from deepem.utils.geometry import Box, Vec3, vec3

Index = tuple[int, ...]

AT_ONCE = 16
"""Chunks of a store that are asked for at the same time."""

EVALUATION = 8
"""One part in so many of the room is for evaluation, whose workers run beside those of training."""


class Cache(Protocol):
    """Where chunks of one array are kept."""

    def get(self, array: Drawn, box: Box) -> Array:
        """A box (C, z, y, x); what is not kept is read."""

    def fetch(self, array: Drawn, box: Box) -> None:
        """Read what a box needs and is not kept."""


def share(train: Mapping[str, Any], val: Mapping[str, Any], room: int, workers: int) -> None:
    """Give each array that is read from disk its place in a cache.

    Args:
        train: Volumes by id; a superset holds such.
        val: Likewise.
        room: Bytes, of all processes together.
        workers: Processes that read at the same time for each of the two.
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
    """All chunks of an array that were read, by whichever process.

    Two processes may read a chunk at the same time: they write the same bytes.
    """

    def __init__(self, array: Drawn) -> None:
        self._held = Shared.zeros(array.shape, array.dtype)
        grid = _span(array, Box((0, 0, 0), vec3(array.shape[1:])))
        self._there = Shared.zeros(tuple(len(r) for r in grid), np.uint8)

    def get(self, array: Drawn, box: Box) -> Array:
        """A box (C, z, y, x), a view of the shared memory."""
        self.fetch(array, box)
        z, y, x = box.slices()
        found: Array = self._held.array[:, z, y, x]
        return found

    def fetch(self, array: Drawn, box: Box) -> None:
        """Read what a box needs and is not there."""
        z, y, x = _span(array, box)
        there = self._there.array[z.start : z.stop, y.start : y.stop, x.start : x.stop]
        if there.all():
            return
        first = np.array([z.start, y.start, x.start])

        def put(index: Index, chunk: Array) -> None:
            zz, yy, xx = _box_of(array, index).slices()
            self._held.array[:, zz, yy, xx] = chunk
            with _FENCE:  # no processor may show the mark before the voxels
                pass
            self._there.array[index] = 1

        _read_each(array, [tuple(at) for at in (np.argwhere(there == 0) + first).tolist()], put)


_FENCE = threading.Lock()


class Recent:
    """The chunks that this process used last, of several arrays.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, Index], Array] = OrderedDict()
        self._coming: dict[tuple[int, Index], Future[Array]] = {}

    def each(
        self, array: Drawn, number: int, indices: Iterable[Index], use: Callable[[Index, Array], None] | None
    ) -> None:
        """Call `use` with each chunk; those that are not there are read, unless another thread is about to."""
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
            for index, future in mine.items():  # of what could not be read, whoever waits for it is to read it himself
                if not future.done():
                    self._coming.pop((number, index), None)
                    future.cancel()
        for index, future in coming:
            chunk = array.read(_box_of(array, index)) if _failed(future) else future.result()
            if use is not None:
                use(index, chunk)

    def _find(self, key: tuple[int, Index], mine: dict[Index, Future[Array]], coming: list[Any]) -> Array | None:
        """A chunk that is kept; else it is noted who reads it: this thread, or another one that is about to."""
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
    """An array's chunks among the latest of this process."""

    def __init__(self, recent: Recent, number: int) -> None:
        self.recent, self.number = recent, number

    def get(self, array: Drawn, box: Box) -> Array:
        """A box (C, z, y, x), put together of chunks."""
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
        """Read what a box needs and is not kept, unless it would fill more than half of the room."""
        chunks = list(itertools.product(*_span(array, box)))
        if 2 * len(chunks) * array.shape[0] * int(np.prod(array.chunks[0])) * array.dtype.itemsize <= self.recent.limit:
            self.recent.each(array, self.number, chunks, None)


def _read_each(array: Drawn, indices: list[Index], use: Callable[[Index, Array], None]) -> None:
    """Read chunks, those of a store several at a time, and hand each over in this thread."""
    boxes = [_box_of(array, index) for index in indices]
    if not array.remote or len(indices) < 2:
        for index, box in zip(indices, boxes, strict=True):
            use(index, array.read(box))
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(indices))) as pool:
        for index, chunk in zip(indices, pool.map(array.read, boxes), strict=True):
            use(index, chunk)


def _span(array: Drawn, box: Box) -> tuple[range, range, range]:
    """The chunks that a box touches, along each axis, counted from the first of the array."""
    chunks, begin = array.chunks
    z, y, x = (
        range((b + o) // n - o // n, (e + o - 1) // n - o // n + 1)
        for b, e, o, n in zip(*box, begin, chunks, strict=True)
    )
    return z, y, x


def _box_of(array: Drawn, index: Index) -> Box:
    """What the array has of a chunk."""
    chunks, begin = array.chunks
    first = [(i + o // n) * n - o for i, o, n in zip(index, begin, chunks, strict=True)]
    low: Vec3 = vec3(max(b, 0) for b in first)
    high = vec3(min(b + n, whole) for b, n, whole in zip(first, chunks, array.shape[1:], strict=True))
    return Box(low, high)
