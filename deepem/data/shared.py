"""Arrays in memory that several processes share."""

from __future__ import annotations

import mmap
import os
import tempfile
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Shared:
    """An array that workers share: forked workers inherit its memory, spawned workers map a file in memory.

    The array moves into that file when the first worker is spawned, one array at a time. The file needs no space
    under /dev/shm. Always read the array through `array`: another reference would keep the old memory alive.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self._file: IO[bytes] | None = None

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: Any) -> Shared:
        """Allocate zeros that this process and its workers can read and write; pages cost nothing until written."""
        file = memory_file(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        shared = cls(map_file(file.fileno(), shape, dtype))
        shared._file = file
        return shared

    def _move(self) -> IO[bytes]:
        if self._file is None:
            file = memory_file(self.array.nbytes)
            mapped = map_file(file.fileno(), self.array.shape, self.array.dtype)
            mapped[...] = self.array
            mapped.flags.writeable = self.array.flags.writeable
            self.array, self._file = mapped, file
        return self._file

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass the file when a worker is spawned; any other pickle contains the array itself."""
        if get_spawning_popen() is None:
            return Shared, (self.array,)
        handle = DupFd(self._move().fileno())
        return _attach, (handle, self.array.shape, self.array.dtype, self.array.flags.writeable)


def map_file(fd: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """Map an open file as a writable array, shared with every process that maps it."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = mmap.mmap(fd, max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)


def memory_file(size: int) -> IO[bytes]:
    """Create an anonymous file, in memory if the system supports this, else on disk."""
    file: IO[bytes]
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("deepem"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - stays open as long as the array
    os.ftruncate(file.fileno(), max(1, size))
    return file


def _attach(handle: Any, shape: tuple[int, ...], dtype: Any, writable: bool) -> Shared:
    with os.fdopen(handle.detach(), "r+b") as file:
        array = map_file(file.fileno(), shape, dtype)
    array.flags.writeable = writable
    return Shared(array)
