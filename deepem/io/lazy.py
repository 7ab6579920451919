"""Lazy arrays: boxes are read from disk or an object store when needed, in any process.

A `Lazy` consists of a path and a window, and is pickled as just these two; each process opens the file itself. A
process closes its open files before it forks, because an HDF5 file shares its position with a child that inherits it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np

from deepem.io.files import imread, opened
from deepem.io.formats import format_of, split_path
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Box, Vec3, vec3

BLOCK: Vec3 = (32, 128, 128)
"""Size of one read from an array that is stored without chunks."""

_OPEN: weakref.WeakSet[Lazy] = weakref.WeakSet()


class Lazy:
    """An array on disk or in an object store, or a window of it.

    Slicing the last three axes returns a smaller window without reading; `numpy.asarray` reads the whole window.

    Args:
        path: A path as for `deepem.io.files.imread`.
        window: The window in voxels of the stored array; by default the whole array.
        sparse: Missing chunks are expected, as in masks. Otherwise the first missing chunk gives a warning.

    Attributes:
        shape: (Z, Y, X) or (C, Z, Y, X).
        dtype: As stored, in the byte order of this machine.
        chunks: (z, y, x) voxels that are read at once, in the stored array's own grid.
        size: (z, y, x) voxels of the stored array.
        attributes: Attributes stored in the file.
        known: Cache for results of callers that scan the array.
        told: Whether the warning of missing chunks has been given.

    Raises:
        InputError: the array does not exist or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], window: Box | None = None, *, sparse: bool = False) -> None:
        self.path, self.sparse = os.fspath(path), sparse
        self.remote = format_of(self.path).remote
        self._opened: tuple[int, Stored, ExitStack] | None = None
        self._lock = threading.RLock()
        self.told = False
        self.known: Any = None
        stored = self._stored()
        self.name = stored.name
        stored.check_axes()
        self.size = stored.size
        self.window = window or Box((0, 0, 0), self.size)
        shape = tuple(int(n) for n in stored.data.shape)
        self.shape: tuple[int, ...] = (*shape[:-3], *self.window.size)
        self.dtype: np.dtype[Any] = np.dtype(stored.data.dtype).newbyteorder("=")
        chunks = getattr(stored.data, "read_chunks", None) or getattr(stored.data, "chunks", None) or BLOCK
        self.chunks = vec3(min(c, n) for c, n in zip(chunks[-3:], self.size, strict=True))
        self.attributes: Mapping[str, Any] = dict(stored.attributes)

    @property
    def ndim(self) -> int:
        """Three axes, or four."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0] if len(self.shape) == 4 else 1

    @property
    def absent(self) -> set[str]:
        """Missing chunks that this process has read."""
        return set(getattr(self._opened[1].data, "absent", ())) if self._opened else set()

    def read(self, box: Box) -> Array:
        """Read a box of the window as (C, Z, Y, X), in the stored type.

        Raises:
            InputError: the box cannot be read.
        """
        with nullcontext() if self.remote else self._lock:  # h5py and tifffile read one box at a time
            stored = self._stored()
            array = stored.read(box.shift(self.window.begin)).astype(self.dtype, copy=False)
        if not self.told and not self.sparse and (gone := getattr(stored.data, "absent", None)):
            self.told = True
            warn(f"{self.name}: the chunk {min(gone)} is absent and read as the fill value")
        return array

    def __getitem__(self, where: Any) -> Any:
        where = where if isinstance(where, tuple) else (where,)
        lead = len(self.shape) - 3
        if ... in where:
            at = where.index(...)
            where = (*where[:at], *[slice(None)] * (len(self.shape) - len(where) + 1), *where[at + 1 :])
        plain = all(isinstance(one, slice) and one.step in (None, 1) for one in where) and len(where) <= len(self.shape)
        if not plain or any(one != slice(None) for one in where[:lead]):
            return np.asarray(self)[where]
        slices = (*where[lead:], *[slice(None)] * (len(self.shape) - max(len(where), lead)))
        ranges = [range(n)[one] for n, one in zip(self.shape[-3:], slices, strict=True)]
        if not all(ranges):
            raise InputError(self.name, f"an empty part of {self.shape}", "one with voxels in it")
        inner = Box(vec3(r.start for r in ranges), vec3(r.stop for r in ranges))
        return Lazy(self.path, inner.shift(self.window.begin), sparse=self.sparse)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.read(Box((0, 0, 0), self.window.size)).reshape(self.shape)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.window, self.sparse)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        held, self._opened = self._opened, None
        if held is not None and held[0] == os.getpid():
            held[2].close()

    def _stored(self) -> Stored:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                stack = ExitStack()
                self._opened = os.getpid(), stack.enter_context(opened(self.path, sparse=True)), stack
                _OPEN.add(self)
            return self._opened[1]


def _reopened(path: str, window: Box, sparse: bool) -> Lazy:
    return Lazy(path, window, sparse=sparse)


def lazily(path: str | os.PathLike[str], *, sparse: bool = False) -> Lazy | Array:
    """Return a lazy array for a path, or an array in memory if forked workers cannot read its format (N5).

    Raises:
        InputError: the volume does not exist or cannot be read.
    """
    return Lazy(path, sparse=sparse) if format_of(path).forks else imread(path, sparse=sparse)


def as_lazy(given: Any) -> Lazy | None:
    """Return a `Lazy` for an opened `Stored` or a dataset of h5py, zarr or cloud-volume.

    Returns:
        None for any other object, which the caller converts with numpy.
    """
    if isinstance(given, Lazy):
        return given
    if isinstance(given, Stored):
        return Lazy(given.name)
    kind = f"{type(given).__module__.split('.')[0]}.{type(given).__name__}"
    path: str | None = None
    if kind == "h5py.Dataset":
        path = f"{given.file.filename}:{given.name.strip('/')}"
    elif kind == "zarr.Array" and os.path.isdir(root := str(getattr(given.store, "root", ""))):
        path = f"{root}:{given.path}" if given.path else root
    elif kind.startswith("cloudvolume.CloudVolume"):
        path = given.cloudpath if given.mip == 0 else None
    if path is None or not _readable(path):
        return None
    return Lazy(path)


def _readable(path: str) -> bool:
    try:
        form = format_of(path)
    except InputError:
        return False
    return form.forks and form.exists(split_path(path)[0])


def _close_all() -> None:
    for lazy in list(_OPEN):
        lazy.close()


os.register_at_fork(before=_close_all)
