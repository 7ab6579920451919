"""The volumes in the folder of a run, with what made them, and its pictures, ready for a page."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deepem.tools.run_settings import text
from deepem.utils.errors import InputError, reason

FOLDERS = ("forward", "")
SUFFIXES = (".h5", ".hdf", ".hdf5", ".zarr", ".n5")
IMAGES = (".png", ".jpg", ".jpeg")
MOST_PICTURES = 8
WIDEST = 1600
"""Pixels; wider pictures are reduced."""
HEAVIEST = 600_000
"""Bytes; heavier pictures are compressed as JPEG."""


@dataclass(frozen=True)
class Output:
    """A volume in the folder of a run.

    Attributes:
        file: Its path in the folder.
        shape: Its shape and axes.
        dtype: Its type.
        size: Bytes on disk; None for a folder.
        written: When it was last changed.
        of: What it holds: an output, or what the segmentation says about itself.
        source: The command that a segmentation says made it; may be empty.
        made: Its provenance.
        problem: Why it cannot be read, else empty.
    """

    file: str
    written: datetime
    size: int | None
    shape: str = ""
    dtype: str = ""
    of: str = ""
    source: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def outputs(folder: Path) -> Iterator[Output]:
    """Yield the volumes in a run's folder and in its folder forward/."""
    for part in FOLDERS:
        for path in sorted((folder / part).glob("*")):
            precomputed = (path / "info").is_file()
            if (path.suffix.lower() in SUFFIXES or precomputed) and not path.name.startswith("."):
                with suppress(FileNotFoundError):  # it was moved meanwhile
                    yield _output(folder, path, f"file://{path.resolve()}" if precomputed else str(path))


def _output(folder: Path, path: Path, address: str) -> Output:
    from deepem.io.files import opened

    about = path.stat()
    written = datetime.fromtimestamp(about.st_mtime, timezone.utc)
    file, size = str(path.relative_to(folder)), None if path.is_dir() else about.st_size
    try:
        with opened(address) as stored:
            held = {name: _plain(value) for name, value in stored.attributes.items()}
            shape = "\N{MULTIPLICATION SIGN}".join(map(str, stored.data.shape))
            dtype = str(stored.data.dtype)
    except (InputError, OSError, ValueError, KeyError) as error:
        return Output(file, written, size, problem=reason(error))
    axes, made = held.get("axes"), held.get("provenance")
    return Output(
        file, written, size, f"{shape} {axes}" if isinstance(axes, str) else shape, dtype, _subject(held),
        str(held.get("source", "")), made if isinstance(made, Mapping) else {},
    )  # fmt: skip


def _subject(held: Mapping[str, Any]) -> str:
    """Say what a volume holds, from its attributes."""
    parts = [text(held[name]) for name in ("tasks", "values", "decoder", "segments") if held.get(name)]
    return ", ".join(parts)


def _plain(value: Any) -> Any:
    """Return an attribute as plain Python values, with JSON decoded."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value.tolist() if hasattr(value, "tolist") else value


@dataclass(frozen=True)
class Inlined:
    """A picture as a data URL.

    Attributes:
        url: The URL.
        width: Pixels.
        height: Pixels.
    """

    url: str
    width: int
    height: int


def inlined(data: bytes) -> Inlined | None:
    """Return a picture as a data URL, reduced if it is wide or heavy; None if it is no picture."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    if width > WIDEST:
        height, width = max(round(height * WIDEST / width), 1), WIDEST
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    packed = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    kind = "png"
    if len(packed) > HEAVIEST:
        packed, kind = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(), "jpeg"
    return Inlined(f"data:image/{kind};base64,{base64.b64encode(packed).decode()}", width, height)


def pictures(folder: Path) -> Iterator[tuple[str, Inlined]]:
    """Yield the pictures in a run's folder and in scores/, by path; at most MOST_PICTURES, the newest."""
    found = [path for part in ("", "scores") for path in (folder / part).glob("*") if path.suffix.lower() in IMAGES]
    newest = sorted(found, key=lambda path: path.stat().st_mtime)[-MOST_PICTURES:]
    for path in sorted(newest):
        picture = inlined(path.read_bytes()) if path.is_file() else None
        if picture is not None:
            yield str(path.relative_to(folder)), picture
