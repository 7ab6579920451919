"""HDF5 files. The dataset is ``main`` unless the path names another."""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import h5py
import numpy as np

from deepem.io.faults import missing_array, readable
from deepem.io.format import MAIN, Format
from deepem.io.hdf5_sources import require_link, require_sources
from deepem.io.hdf5_writing import new_hdf5
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, touched, vec3

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""errno of file systems without locks, such as some network disks."""


def open_hdf5(file: str | os.PathLike[str], mode: str = "r") -> h5py.File:
    """Open an HDF5 file, without a lock if the file system does not support locks.

    Raises:
        InputError: another program holds it open for writing.
        OSError: it cannot be opened.
    """
    try:
        return h5py.File(file, mode)
    except BlockingIOError as error:
        wants = "that program closed, or, if it does not write any more, HDF5_USE_FILE_LOCKING=FALSE in the environment"
        raise InputError(file, "a file that another program holds open", wants) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return h5py.File(file, mode, locking=False)


class Chunked:
    """A chunked dataset that records missing chunks, which HDF5 reads as the fill value.

    Attributes:
        absent: Chunks that were read and do not exist.
    """

    def __init__(self, item: h5py.Dataset) -> None:
        self.item = item
        self.shape, self.dtype, self.chunks = item.shape, item.dtype, item.chunks
        self.absent: set[str] = set()
        self._whole = item.id.get_num_chunks() == math.prod(
            -(-n // c) for n, c in zip(item.shape, item.chunks, strict=True)
        )

    def __getitem__(self, where: Any) -> Array:
        array = np.asarray(self.item[where])
        if not self._whole and len(self.shape) in (3, 4):
            self._look_at(where)
        return array

    def _look_at(self, where: Any) -> None:
        whole = Box((0, 0, 0), vec3(self.shape[-3:]))
        z, y, x = whole.slices() if where is ... else where[-3:]
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        lead = [range(0, n, c) for n, c in zip(self.shape[:-3], self.chunks[:-3], strict=True)]
        for chunk in touched(box, vec3(self.chunks[-3:]), whole):
            for first in itertools.product(*lead):
                begin = (*first, *chunk.begin)
                if self.item.id.get_chunk_info_by_coord(begin).byte_offset is None:
                    self.absent.add(f"at {begin}")


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    with ExitStack() as stack:
        with readable(file, "HDF5"):
            top = stack.enter_context(open_hdf5(file))
            item = top.get(key or MAIN)
            if item is None:
                require_link(file, top, key or MAIN)
            if not isinstance(item, h5py.Dataset):
                raise missing_array(file, key or MAIN, _datasets(top))
            name = f"{file}:{item.name.strip('/')}"
            if item.shape is None:
                raise InputError(name, "a dataset without data", "an array")
            require_sources(name, item)
            data = Chunked(item) if item.chunks and not item.is_virtual and all(item.shape) else item
            stored = Stored(name, data, {**top.attrs, **item.attrs})
        yield stored


def _datasets(top: h5py.File) -> list[str]:
    held: list[str] = []
    top.visititems(lambda name, what: held.append(name) if isinstance(what, h5py.Dataset) else None)
    return held


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    wanted = compress and array.size
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if wanted else {}
    with new_hdf5(file) as (top, _):
        top.create_dataset(key or MAIN, data=array, **packed).attrs.update(attributes)


HDF5 = Format("HDF5", (".h5", ".hdf5", ".hdf"), _open, _write, inside=True)
