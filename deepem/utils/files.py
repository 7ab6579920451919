"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepem.utils.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the target to write to; on success it is synced to disk and renamed onto the target.

    If the block raises, the target stays as it was and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
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


def remove_torn(folder: Path) -> None:
    """Remove the files that `replacing` began in a folder in a process of this machine that has ended since."""
    for path in folder.glob(".*.part"):
        found = re.search(rf"\.{re.escape(socket.gethostname())}\.([0-9]+)\.part$", path.name)
        if found and not _lives(int(found[1])):
            with suppress(OSError):
                path.unlink()


def _lives(process: int) -> bool:
    """Whether a process of this machine is there, this one apart."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return process != os.getpid()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")


def inside(flag: str, name: str) -> Path:
    """A name that was given as a path below a folder.

    Raises:
        InputError: it leads out of the folder, or names nothing in it.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise InputError(flag, name or "nothing", "a name that stays inside its folder: no .. and no / in front")
    return path


def run_folder(exp_name: str, test: bool = False) -> Path:
    """Where a run lives: experiments/<exp_name> under the working directory; a short trial, under test/.

    A name that begins with experiments/ is that folder and is not doubled.

    Raises:
        InputError: a name that leads out of there.
    """
    name = inside("--exp_name", exp_name)
    name = Path(*name.parts[1:]) if name.parts[:1] == ("experiments",) else name
    return Path("test" if test else "", "experiments") / name
