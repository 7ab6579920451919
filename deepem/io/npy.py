"""numpy files, read by memory mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from deepem.io.faults import readable
from deepem.io.format import Format
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    with readable(file, "numpy"):
        data = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(data, np.ndarray):
            data.close()
            raise InputError(
                file, f"an archive of the arrays {', '.join(data.files)} (npz)", "one array, as np.save writes"
            )
    yield Stored(file, data)


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    with open(file, "wb") as handle:  # given a file name, numpy would append its suffix
        np.save(handle, array)


NPY = Format("numpy", (".npy",), _open, _write)
