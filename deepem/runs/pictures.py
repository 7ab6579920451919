"""Reads the pictures in TensorBoard events, record by record: files of any size take little memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PNG = b"\x89PNG\r\n\x1a\n"
TEXT = "/text_summary"
"""What TensorBoard appends to the tag of a text."""

LARGEST = 1 << 28
"""Bytes of the largest record to believe in; a larger one is damage."""


@dataclass(frozen=True)
class Picture:
    """A picture in the events of a run.

    Attributes:
        tag: Its tag, ``test/images/affinity``.
        iteration: The iteration that it shows.
        png: The file.
        words: What it shows, from the text under the same tag; may be empty.
    """

    tag: str
    iteration: int
    png: bytes
    words: str


def newest_pictures(logs: Path) -> list[Picture]:
    """Return the newest picture of each tag, by tag.

    A damaged record ends the reading of its file; what comes before it counts.

    Raises:
        OSError: a file cannot be read.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event

    pictures: dict[str, tuple[int, bytes]] = {}
    words: dict[str, str] = {}
    for path in sorted(logs.glob("*tfevents*")):
        with open(path, "rb") as file:
            for record in _records(file):
                if PNG not in record and TEXT.encode() not in record:
                    continue  # a number: most records are
                try:
                    event = Event.FromString(record)
                except DecodeError:
                    break
                for value in event.summary.value:
                    if value.tag.endswith(TEXT):
                        texts = value.tensor.string_val
                        words[value.tag.removesuffix(TEXT)] = texts[0].decode("utf-8", "replace") if texts else ""
                    elif event.step >= pictures.get(value.tag, (0, b""))[0]:
                        png = value.image.encoded_image_string
                        pictures |= {value.tag: (event.step, png)} if png.startswith(PNG) else {}
    return [Picture(tag, *found, words.get(tag, "")) for tag, found in sorted(pictures.items())]


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Return the events in a TFRecord file: length (8 bytes), checksum (4), event, checksum (4)."""
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack_from("<Q", head)
        if length > LARGEST:
            return
        record = file.read(length)
        if len(record) < length or len(file.read(4)) < 4:
            return
        yield record
