"""Write HDF5 files so that a full disk raises an error instead of crashing the program.

If the HDF5 library cannot flush its buffers to a full disk, it fails to close the file and crashes at the end of the
program. It therefore writes through `Outlet`, which never fails and records the first error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import h5py


class Outlet:
    """A file object for the HDF5 library that silently drops all writes after the first failed one.

    Attributes:
        error: The error of the first failed write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while len(left) and self.error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.error = error
        return count

    def truncate(self, size: int) -> int:
        """Set the size."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def flush(self) -> None:
        """Do nothing, since writes are not buffered."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read what was written."""
        return self._file.read(size) or b""

    def readinto(self, buffer: Any) -> int:
        """Read what was written."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def check(self) -> None:
        """Raise the first error, if any.

        Raises:
            OSError: a write failed.
        """
        if self.error is not None:
            raise self.error


@contextmanager
def new_hdf5(path: str | os.PathLike[str]) -> Iterator[tuple[h5py.File, Outlet]]:
    """Yield a new HDF5 file and its `Outlet`, which is checked for errors once more at the end.

    Raises:
        OSError: writing failed, for example on a full disk.
    """
    with open(path, "w+b", buffering=0) as file:
        outlet = Outlet(file)
        try:
            with h5py.File(outlet, "w", locking=False) as top:  # an error that is not about the disk
                yield top, outlet
        except (OSError, RuntimeError):
            outlet.check()  # the disk's error explains the library's
            raise
        outlet.check()
