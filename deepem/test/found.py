"""Serialise the objects found in a tile, and write the table of the objects of a volume."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.faults import unwritable
from deepem.models.detection.tiles import Found
from deepem.utils.files import replacing
from deepem.utils.geometry import Box, vec3

COLUMNS = ("id", "class", "score", "z1", "y1", "x1", "z2", "y2", "x2", "voxels", "z", "y", "x")
"""Columns of the table of objects. The half-open box and the centroid z, y, x count visible voxels only."""


def pack(found: Sequence[Found]) -> bytes:
    """Pack the objects of a tile into bytes; masks take one bit per voxel."""
    masks = [np.packbits(one.mask) for one in found]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        number=np.array([one.key[1] for one in found], np.int64),
        box=np.array([[*one.box.begin, *one.box.end] for one in found], np.int64).reshape(-1, 6),
        score=np.array([one.score for one in found], np.float64),
        label=np.array([one.label for one in found], np.int64),
        flags=np.array([[one.owned, one.cut] for one in found], bool).reshape(-1, 2),
        length=np.array([len(mask) for mask in masks], np.int64),
        masks=np.concatenate([np.zeros(0, np.uint8), *masks]),
    )
    return buffer.getvalue()


def unpack(tile: int, held: bytes) -> list[Found]:
    """Unpack the objects of a tile."""
    with np.load(io.BytesIO(held)) as file:
        arrays = dict(file)
    ends = np.cumsum(arrays["length"])
    found = []
    for n, number in enumerate(arrays["number"].tolist()):
        box = Box(vec3(arrays["box"][n, :3]), vec3(arrays["box"][n, 3:]))
        bits = arrays["masks"][ends[n] - arrays["length"][n] : ends[n]]
        mask = np.unpackbits(bits, count=box.voxels).reshape(box.size).astype(bool)
        owned, cut = arrays["flags"][n].tolist()
        found.append(Found((tile, number), box, mask, float(arrays["score"][n]), int(arrays["label"][n]), owned, cut))
    return found


def write_table(path: Path, rows: Iterable[Sequence[Any]], columns: Sequence[str] = COLUMNS) -> list[Path]:
    """Write a table as CSV and, if pyarrow is installed, as Parquet beside it; return the files written.

    Raises:
        InputError: a file cannot be written, for example because the disk is full.
    """
    rows, written = [tuple(row) for row in rows], [path]
    try:
        with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([[_word(value) for value in row] for row in rows])
        if importlib.util.find_spec("pyarrow") is not None:
            written.append(path.with_suffix(".parquet"))
            _write_parquet(written[-1], rows, columns)
    except OSError as error:
        raise unwritable(written[-1], error) from error
    return written


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _write_parquet(path: Path, rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> None:
    arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    table = arrow.table({name: [row[n] for row in rows] for n, name in enumerate(columns)})
    with replacing(path) as beside:
        parquet.write_table(table, beside)
