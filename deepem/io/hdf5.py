"""HDF5 files: an array inside is a dataset, ``main`` unless the path names one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import h5py

from deepem.io.faults import missing_array, readable
from deepem.io.format import MAIN, Format
from deepem.io.stored import Stored
from deepem.io.volume import Array


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    with ExitStack() as stack:
        with readable(file, "HDF5"):
            top = stack.enter_context(h5py.File(file, "r"))
            item = top.get(key or MAIN)
            if not isinstance(item, h5py.Dataset):
                raise missing_array(file, key or MAIN, _datasets(top))
            stored = Stored(f"{file}:{item.name.strip('/')}", item, {**top.attrs, **item.attrs})
        yield stored


def _datasets(top: h5py.File) -> list[str]:
    held: list[str] = []
    top.visititems(lambda name, what: held.append(name) if isinstance(what, h5py.Dataset) else None)
    return held


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    wanted = compress and array.size
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if wanted else {}
    with h5py.File(file, "w") as top:
        top.create_dataset(key or MAIN, data=array, **packed).attrs.update(attributes)


HDF5 = Format("HDF5", (".h5", ".hdf5", ".hdf"), _open, _write, inside=True)
