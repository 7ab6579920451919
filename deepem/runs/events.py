"""Truncates the log files of a run to the iteration that it resumes from; newer rows are moved aside, never lost."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepem.utils.errors import InputError
from deepem.utils.files import replacing, write_text


def set_aside(logs: Path, after: int) -> list[Path]:
    """Truncate metrics.jsonl and the TensorBoard files to iteration `after`.

    A file with newer rows is moved, whole, into a sub-folder, and its older rows are written back in its place.
    Returns the new paths of the moved files.
    """
    moved: list[Path] = []
    for path in sorted(logs.glob("*")):
        cut = _cut_rows if path.name == "metrics.jsonl" else _cut_events if "tfevents" in path.name else None
        kept = cut(path, after) if cut else None
        if kept is None:
            continue
        aside = _free(logs / f"after{after}") if not moved else moved[0].parent
        aside.mkdir(exist_ok=True)
        moved.append(aside / path.name)
        with replacing(path) as beside:
            beside.write_bytes(kept)
            path.rename(moved[-1])
    return moved


def _free(folder: Path) -> Path:
    tries = (folder.with_name(f"{folder.name}_{i}" if i else folder.name) for i in range(10**6))
    return next(path for path in tries if not path.exists())


def _cut_rows(path: Path, after: int) -> bytes | None:
    """Return the rows up to an iteration, or None if the file has no newer rows."""
    rows = _lines(path)
    kept = [row for row in rows if _iteration(row) <= after]
    return None if len(kept) == len(rows) else "".join(f"{row}\n" for row in kept).encode()


def _iteration(row: str) -> float:
    """Return the iteration of a row; infinity for a row that a crash cut off or a disk error damaged."""
    try:
        found = json.loads(row)
        whole = isinstance(found["phase"], str) and isinstance(found["iter"], int)
        return found["iter"] if whole else float("inf")
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")


def _cut_events(path: Path, after: int) -> bytes | None:
    """Return the records up to an iteration, or None if the file has no newer records."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    kept, whole = [], 0
    for record in _records(data):
        whole += len(record)
        try:
            step = Event.FromString(record[12:-4]).step
        except DecodeError:
            step = after + 1  # a damaged record is moved aside with the newer ones
        if step <= after:
            kept.append(record)
    cut = b"".join(kept)
    return None if len(cut) == len(data) == whole else cut


def _records(data: bytes) -> Iterator[bytes]:
    """Return the complete records of a TFRecord file: length (8 bytes), checksum (4), event, checksum (4)."""
    start = 0
    while start + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 12 + length + 4
        if end > len(data):
            return
        yield data[start:end]
        start = end


def rows(logs: Path) -> list[dict[str, Any]]:
    """Return the complete rows of metrics.jsonl, oldest first."""
    path = logs / "metrics.jsonl"
    lines = _lines(path) if path.is_file() else []
    return [json.loads(line) for line in lines if _iteration(line) < float("inf")]


def _lines(path: Path) -> list[str]:
    """Return the lines of a log; undecodable bytes, as in a torn sector, are no error."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def append_row(path: Path, row: dict[str, object]) -> None:
    """Append one row to a JSON lines file.

    Raises:
        InputError: the disk cannot take the row.
    """
    try:
        if not path.exists():
            write_text(path, "")
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise InputError(path, error.strerror or error, "a disk that takes the log") from error
