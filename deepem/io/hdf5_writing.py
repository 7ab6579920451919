"""HDF5 files written so that a full disk is an error and no crash.

When the disk cannot take what is left in its buffers, the HDF5 library fails to close the file, and crashes when the
program ends. So the library writes through `Outlet`, which takes everything and keeps the first error for us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import h5py


class Outlet:
    """A file for the HDF5 library: after the first write that fails, all others are dropped without a word.

    Attributes:
        error: What the first failed write said.
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
        """Nothing waits here."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
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
        """Raise the first error.

        Raises:
            OSError: a write has failed.
        """
        if self.error is not None:
            raise self.error


@contextmanager
def new_hdf5(path: str | os.PathLike[str]) -> Iterator[tuple[h5py.File, Outlet]]:
    """A new HDF5 file to write into, and what tells whether writing failed; asked once more at the end.

    Raises:
        OSError: the disk cannot take it.
    """
    with open(path, "w+b", buffering=0) as file:
        outlet = Outlet(file)
        try:
            with h5py.File(outlet, "w", locking=False) as top:  # which is none of the disk
                yield top, outlet
        except (OSError, RuntimeError):
            outlet.check()  # what the library says of it comes second
            raise
        outlet.check()
