"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the target to write to; on success it is synced to disk and renamed onto the target.

    If the block raises, the target stays as it was and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        with suppress(OSError):  # a folder that is a file, say: the block has said so, or was about something else
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")


def run_folder(exp_name: str, test: bool = False) -> Path:
    """Where a run lives: experiments/<exp_name> under the working directory; a short trial, under test/.

    A name that begins with experiments/ is that folder and is not doubled.
    """
    name = Path(exp_name)
    name = Path(*name.parts[1:]) if name.parts[:1] == ("experiments",) else name
    return Path("test" if test else "", "experiments") / name
