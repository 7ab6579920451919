"""Atomic writing of files."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepem.utils.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside the target; on success, sync it to disk and rename it to the target.

    If the block raises, the target is unchanged and the temporary file is removed.
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
        with suppress(OSError):  # for example, the folder is a file; the block's own error matters more
            beside.unlink(missing_ok=True)


def remove_torn(folder: Path) -> None:
    """Remove temporary files that processes of this machine left in a folder when they ended inside `replacing`."""
    for path in folder.glob(".*.part"):
        found = re.search(rf"\.{re.escape(socket.gethostname())}\.([0-9]+)\.part$", path.name)
        if found and not _lives(int(found[1])):
            with suppress(OSError):
                path.unlink()


def _lives(process: int) -> bool:
    """Whether a process is running on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to another user
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside the target; on success, rename it to the target, else remove it.

    Raises:
        InputError: the target is there and is not an empty folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(folder, "a folder that has files", "one that is empty or not there yet")
    beside = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.part")
    beside.mkdir(parents=True)
    try:
        yield beside
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def inside(flag: str, name: str) -> Path:
    """Return a name as a relative path that stays inside its folder.

    Raises:
        InputError: the name leads out of the folder, or is empty.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise InputError(flag, name or "nothing", "a name that stays inside its folder: no .. and no / in front")
    return path


def run_folder(exp_name: str, test: bool = False) -> Path:
    """Return the folder of a run: experiments/<exp_name>, or test/experiments/<exp_name> for a short trial.

    A name that already begins with experiments/ does not get the prefix twice.

    Raises:
        InputError: the name leads out of that folder.
    """
    name = inside("--exp_name", exp_name)
    name = Path(*name.parts[1:]) if name.parts[:1] == ("experiments",) else name
    return Path("test" if test else "", "experiments") / name
