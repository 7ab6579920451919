"""TIFF stacks, read page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from deepem.io.faults import readable
from deepem.io.format import Format
from deepem.io.stored import Stored
from deepem.io.volume import Array


class Pages:
    """A TIFF stack as an array: the pages along z are read as they are asked for."""

    def __init__(self, series: Any) -> None:
        self.series = series
        self.shape, self.dtype = series.shape, series.dtype
        self.chunks = (1, *self.shape[-2:])  # what a read error is narrowed down to

    def __getitem__(self, where: Any) -> Array:
        if where is ...:
            return np.asarray(self.series.asarray())
        _, z, y, x = where
        planes = self.shape[-3]
        volumes = self.shape[0] if len(self.shape) == 4 else 1
        if len(self.series.pages) != volumes * planes:  # one page holds several planes
            return np.asarray(self.series.asarray()[where])
        pages = [c * planes + k for c in range(volumes) for k in range(z.start, z.stop)]
        read = [self.series.pages[p].asarray()[y, x] for p in pages]
        return np.asarray(np.reshape(read, (*self.shape[:-3], z.stop - z.start, *read[0].shape)))


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    import tifffile

    with ExitStack() as stack:
        with readable(file, "TIFF"):
            stored = Stored(file, Pages(stack.enter_context(tifffile.TiffFile(file)).series[0]))
        yield stored


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    import tifffile

    # 'minisblack' keeps a last axis of 3 or 4 voxels from being taken for colour; BigTIFF from 2 GiB on.
    packed = "zlib" if compress else None
    big = array.nbytes >= 2**31
    tifffile.imwrite(file, array, photometric="minisblack", bigtiff=big, compression=packed)


TIFF = Format("TIFF", (".tif", ".tiff"), _open, _write)
