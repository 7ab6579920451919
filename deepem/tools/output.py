"""Check before the work that outputs can be written, and report a later failure in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepem.cli.one_line import one_line_errors
from deepem.utils.errors import InputError


def say(text: object) -> None:
    """Write a line of results to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def errors_of(prog: str, *flags: str) -> Iterator[set[str]]:
    """Wrap a verb: an InputError becomes one line on stderr, with dashes before flags, and exit code 2.

    Library code names the parameter, ``queue``, but the user knows the flag, ``--queue``. Yields the set of names that
    are flags; the caller may add to it.
    """
    with one_line_errors(prog) as names:
        names.update(flags)
        try:
            yield names
        except FileNotFoundError as error:
            where = error.filename or "file"
            raise InputError(where, error.strerror or error, "a file that is there") from error


def check_file(flag: str, path: Path) -> None:
    """Refuse a file that cannot be written: its path is a folder, or its folder does not exist.

    Raises:
        InputError: the path cannot be written to.
    """
    if path.is_dir():
        raise InputError(flag, path, "a file, not a folder")
    if not path.parent.is_dir():
        raise InputError(flag, path, "a file in a folder that is there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(flag, path, "a file that may be written")


def check_folder(flag: str, path: Path) -> None:
    """Refuse a folder that cannot be created or written into; it need not exist yet.

    Raises:
        InputError: the path cannot be written to.
    """
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError(flag, path, f"a folder: {there} is a file")
    if not os.access(there, os.W_OK):
        raise InputError(flag, path, "a folder that may be written into")


@contextmanager
def writing(flag: str, path: Path) -> Iterator[None]:
    """Wrap code that writes: a location that cannot be written to becomes an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(flag, f"{path}: {error.strerror or error}", "a place that can be written to") from error
