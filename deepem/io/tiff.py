"""TIFF stacks, read page by page. Series written in several calls are joined along z."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np

from deepem.io.faults import readable
from deepem.io.format import Format
from deepem.io.stored import Stored
from deepem.io.volume import Array
from deepem.utils.errors import InputError

JOINED = {"shaped", "generic", "uniform"}
"""tifffile's kinds of series that, if a file has several with the same section size, are parts of one stack."""


class Pages:
    """A TIFF stack as an array; pages along z are read on demand."""

    def __init__(self, series: Sequence[Any]) -> None:
        self.series = series
        self.dtype = series[0].dtype
        self.shape = series[0].shape
        if len(series) > 1:
            self.shape = (sum(_depth(one) for one in series), *self.shape[-2:])
        self.chunks = (1, *self.shape[-2:])  # the unit to which read errors are narrowed down

    def __getitem__(self, where: Any) -> Array:
        if where is ...:
            whole = [one.asarray() for one in self.series]
            return np.asarray(
                whole[0] if len(whole) == 1 else np.concatenate([w.reshape(-1, *w.shape[-2:]) for w in whole])
            )
        _, z, y, x = where
        if len(self.series) == 1 and len(self.shape) == 4:
            return self._of_channels(z, y, x)
        ends = list(itertools.accumulate(_depth(one) for one in self.series))
        found = [
            _planes(one, max(z.start - end + _depth(one), 0), min(z.stop - end, 0) + _depth(one), y, x)
            for one, end in zip(self.series, ends, strict=True)
            if z.start < end and z.stop > end - _depth(one)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _of_channels(self, z: slice, y: slice, x: slice) -> Array:
        (one,), (channels, depth) = self.series, self.shape[:2]
        if len(one.pages) != channels * depth:  # one page holds several planes
            return np.asarray(one.asarray()[:, z, y, x])
        pages = [one.pages[c * depth + k] for c in range(channels) for k in range(z.start, z.stop)]
        read = [page.asarray()[y, x] for page in pages]
        return np.asarray(np.reshape(read, (channels, -1, *read[0].shape)))


def _depth(series: Any) -> int:
    return int(series.shape[0]) if len(series.shape) == 3 else 1


def _planes(series: Any, begin: int, end: int, y: slice, x: slice) -> Array:
    if len(series.pages) != _depth(series):  # one page holds several planes
        return np.asarray(series.asarray()[begin:end, y, x])
    return np.asarray([series.pages[k].asarray()[y, x] for k in range(begin, end)])


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    import tifffile

    with ExitStack() as stack:
        with readable(file, "TIFF"):
            _refuse_cut_chain(file)
            with _raising(file, tifffile.logger()):
                series = stack.enter_context(tifffile.TiffFile(file)).series
            _check(file, series)
            stored = Stored(file, Pages(series))
        yield stored


@contextmanager
def _raising(file: str, logger: logging.Logger) -> Iterator[None]:
    """Raise the errors that tifffile only logs: it logs damage and continues with the readable part.

    Raises:
        InputError: tifffile logged an error.
    """
    logged: list[str] = []
    handler, thread = logging.Handler(logging.ERROR), threading.get_ident()
    handler.emit = lambda record: logged.append(record.getMessage()) if record.thread == thread else None  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if logged:
        told = logged[0].rpartition("> ")[2]
        raise InputError(file, f"a damaged file, perhaps cut short ({told})", "a whole TIFF file")


def _check(file: str, series: Sequence[Any]) -> None:
    """Refuse files that are not a stack of sections, or are truncated.

    Raises:
        InputError: the file has no page, its series cannot be joined, it is in colour, channels come after z, or the
            last page extends beyond the end of the file.
    """
    if not series:
        raise InputError(file, "no page", "a stack of sections")
    shapes = [tuple(one.shape) for one in series]
    for one in series:
        told = f"an array of shape {tuple(one.shape)}, axes {one.axes}"
        if "S" in one.axes:
            raise InputError(file, f"{told}: colours", "grey values, (Z, Y, X): convert the stack to 8-bit grey")
        if not one.axes.endswith("YX") or (one.axes[:-2].endswith("C") and len(one.axes) > 3):
            raise InputError(file, told, "the axes (Z, Y, X), or (C, Z, Y, X) with the channels in front of z")
    same = len({(shape[-2:], one.dtype, len(shape) > 3) for shape, one in zip(shapes, series, strict=True)}) == 1
    if len(series) > 1 and not (same and len(shapes[0]) < 4 and all(one.kind in JOINED for one in series)):
        several = ", ".join(map(str, shapes[:4])) + (", ..." if len(shapes) > 4 else "")
        raise InputError(file, f"{len(series)} series, of shapes {several}", "one, or blocks of one stack")
    size = os.path.getsize(file)
    for one in series:
        ends = [0 if one.dataoffset is None else one.dataoffset + one.nbytes]
        for page in (one.pages[0], one.pages[-1]):
            if page is not None:  # a section that is missing from an OME-TIFF
                ends += [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends) > size:
            raise InputError(file, f"a file cut short: {size} bytes, of at least {max(ends)}", "a whole TIFF file")


def _refuse_cut_chain(file: str) -> None:
    """Check the chain of page directories; if it leads out of the file, tifffile would silently read a shorter stack.

    Raises:
        InputError: a directory lies beyond the end of the file.
    """
    size = os.path.getsize(file)
    with open(file, "rb") as handle:
        order, head = {b"II": "little", b"MM": "big"}.get(handle.read(2)), handle.read(14)
        if order is None or len(head) < 6:
            return  # tifffile reports the error
        number = int.from_bytes(head[:2], order)  # type: ignore[arg-type]
        big = number == 43
        width, tag, count = (8, 20, 8) if big else (4, 12, 2)
        at = int.from_bytes(head[6:14] if big else head[2:6], order)  # type: ignore[arg-type]
        pages, seen = 0, set[int]()
        while at and at not in seen:
            seen.add(at)
            end = at + count
            entries = _number(handle, at, count, order)
            end += entries * tag + width
            if end > size:
                wants = "a whole TIFF file"
                raise InputError(file, f"a file cut short after {pages} pages: {size} bytes, of at least {end}", wants)
            at, pages = _number(handle, end - width, width, order), pages + 1


def _number(handle: IO[bytes], at: int, width: int, order: Any) -> int:
    handle.seek(at)
    return int.from_bytes(handle.read(width), order)


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    import tifffile

    # 'minisblack': otherwise tifffile would treat a last axis of 3 or 4 voxels as colour. BigTIFF from 2 GiB on.
    packed = "zlib" if compress else None
    big = array.nbytes >= 2**31
    tifffile.imwrite(file, array, photometric="minisblack", bigtiff=big, compression=packed)


TIFF = Format("TIFF", (".tif", ".tiff"), _open, _write)
