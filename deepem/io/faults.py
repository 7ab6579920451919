"""What is said when a file cannot be read or written: one line that names the file and the remedy."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from deepem.utils.errors import InputError, reason

FAULTS = (
    *(OSError, RuntimeError, ValueError, LookupError, EOFError, ArithmeticError, MemoryError, TypeError),
    *(AttributeError, zlib.error, HTTPException),
)
"""What libraries raise over a file that is damaged or not what its name says."""


@contextmanager
def readable(file: object, form: str) -> Iterator[None]:
    """Turn what a library raises over a damaged file into one line that names the file.

    Raises:
        InputError: the block failed with one of `FAULTS`.
    """
    try:
        yield
    except InputError:
        raise
    except (PermissionError, IsADirectoryError) as error:
        raise InputError(file, error.strerror or reason(error), f"a readable {form} file") from error
    except MemoryError as error:
        raise InputError(file, f"more than fits into memory ({reason(error)})", "a smaller volume") from error
    except FAULTS as error:
        raise InputError(file, f"a file that cannot be read ({reason(error)})", f"a whole {form} file") from error


def unwritable(path: object, error: Exception) -> InputError:
    """What to say when a disk cannot take an output."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    if full:
        return InputError(path, "a full disk", "room for the output")
    return InputError(path, f"a place that cannot be written to ({reason(error)})", "one that can")


def missing_array(file: object, key: str, held: list[str]) -> InputError:
    """What to say of an array that is not in its file: those that are."""
    there = ", ".join(held) or "none"
    return InputError(file, f"no dataset '{key}'", f"FILE:DATASET with a dataset that is there: {there}")
