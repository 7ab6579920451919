"""What the verbs write and where: refused before the work if it cannot be, and in one line if it fails after all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepem.cli.parser import one_line_errors
from deepem.utils.errors import InputError


def say(text: object) -> None:
    """A line of results on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def errors_of(prog: str, *flags: str) -> Iterator[set[str]]:
    """Wrap a verb: an InputError becomes one line on stderr and exit code 2, which names flags with their dashes.

    Library code names the parameter, ``queue``, where a user knows the flag, ``--queue``. Yields the set of flags that
    are told so, to be added to.
    """
    with one_line_errors(prog) as names:
        names.update(flags)
        try:
            yield names
        except FileNotFoundError as error:
            where = error.filename or "file"
            raise InputError(where, error.strerror or error, "a file that is there") from error


def check_file(flag: str, path: Path) -> None:
    """Refuse a file that could not be written: a folder, or one in a folder that is not there.

    Raises:
        InputError: it could not.
    """
    if path.is_dir():
        raise InputError(flag, path, "a file, not a folder")
    if not path.parent.is_dir():
        raise InputError(flag, path, "a file in a folder that is there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(flag, path, "a file that may be written")


def check_folder(flag: str, path: Path) -> None:
    """Refuse a folder that could not be made or written into; it need not be there yet.

    Raises:
        InputError: it could not.
    """
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError(flag, path, f"a folder: {there} is a file")
    if not os.access(there, os.W_OK):
        raise InputError(flag, path, "a folder that may be written into")


@contextmanager
def writing(flag: str, path: Path) -> Iterator[None]:
    """Around what writes: a place that cannot be written to is bad input."""
    try:
        yield
    except OSError as error:
        raise InputError(flag, f"{path}: {error.strerror or error}", "a place that can be written to") from error
