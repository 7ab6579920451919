"""HDF5 files: an array inside is a dataset, ``main`` unless the path names one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py

from deepem.io.faults import missing_array, readable
from deepem.io.format import MAIN, Format
from deepem.io.hdf5_writing import new_hdf5
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system answers that has no locks, such as some network disks."""


def open_hdf5(file: str | os.PathLike[str], mode: str = "r") -> h5py.File:
    """An HDF5 file, opened without a lock where the file system has none.

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


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    with ExitStack() as stack:
        with readable(file, "HDF5"):
            top = stack.enter_context(open_hdf5(file))
            item = top.get(key or MAIN)
            if not isinstance(item, h5py.Dataset):
                raise missing_array(file, key or MAIN, _datasets(top))
            name = f"{file}:{item.name.strip('/')}"
            if item.shape is None:
                raise InputError(name, "a dataset without data", "an array")
            _refuse_missing_sources(name, item)
            stored = Stored(name, item, {**top.attrs, **item.attrs})
        yield stored


def _refuse_missing_sources(name: str, item: h5py.Dataset) -> None:
    """HDF5 reads the parts of a virtual dataset whose files are gone as fill values, without a word.

    Raises:
        InputError: a file that the dataset is made of is not there.
    """
    if not item.is_virtual:
        return
    folder = Path(item.file.filename).parent
    sources = {source.file_name for source in item.virtual_sources()}
    gone = sorted(
        source for source in sources if source != "." and "%b" not in source and not (folder / source).exists()
    )
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise InputError(
            name, f"a virtual dataset without its file {gone[0]}{more}", "all the files that it is made of"
        )


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
