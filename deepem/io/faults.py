"""Errors for files that cannot be read or written: one line that names the file and the remedy."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from deepem.utils.errors import InputError, reason

FAULTS = (
    *(OSError, RuntimeError, ValueError, LookupError, EOFError, ArithmeticError, MemoryError, TypeError),
    *(AttributeError, zlib.error, HTTPException),
)
"""Exceptions that libraries raise on a file that is damaged or has the wrong suffix."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""errno of a full disk, an exceeded quota, and a file size limit."""

EXTRAS = {"zarr": "zarr", "imagecodecs": "tiff", "tensorstore": "zarr"}
"""Optional package -> the extra of this project that installs it."""


@contextmanager
def readable(file: object, form: str) -> Iterator[None]:
    """Convert a library's error on a damaged file to a one-line error that names the file.

    Raises:
        InputError: the block raised one of `FAULTS`, or a package is missing.
    """
    try:
        yield
    except InputError:
        raise
    except (*FAULTS, ImportError) as error:
        raise unreadable_file(file, form, error) from error


def unreadable_file(file: object, form: str, error: Exception) -> InputError:
    """Return the error for a file that a library failed to read."""
    if (told := missing_package(file, error)) is not None:
        return told
    if isinstance(error, PermissionError | IsADirectoryError):
        return InputError(file, error.strerror or reason(error), f"a readable {form} file")
    if isinstance(error, MemoryError):
        return InputError(file, f"more than fits into memory ({reason(error)})", "a smaller volume")
    return InputError(file, f"a file that cannot be read ({reason(error)})", f"a whole {form} file")


def missing_package(file: object, error: Exception) -> InputError | None:
    """Return the error for a read that failed because an optional package is missing; None for other failures."""
    name = error.name if isinstance(error, ImportError) else None
    if name is None and "imagecodecs" in str(error):  # tifffile reports a missing package by ValueError
        name = "imagecodecs"
    if name is None:
        return None
    package = name.split(".")[0]
    remedy = f"pip install 'deepem[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"
    return InputError(file, f"a file that cannot be read without the package {package}", remedy)


def refuse_special(file: str) -> None:
    """Refuse a pipe, a socket or a device: opening one may block forever.

    Raises:
        InputError: the path is neither a file nor a folder.
    """
    mode = os.stat(file).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(file, "a pipe, socket or device", "a file")


def unwritable(path: object, error: Exception) -> InputError:
    """Return the error for an output that cannot be written to disk."""
    if (told := store_fault(path, error)) is not None:
        return told
    full = getattr(error, "errno", None) in FULL or "No space left" in str(error)
    if full:
        return InputError(path, "a full disk", "room for the output")
    return InputError(path, f"a place that cannot be written to ({reason(error)})", "one that can")


STORE_FAULTS: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "TokenRetrievalError"}),
        "no credentials",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a file in ~/.cloudvolume/secrets",
    ),
    (frozenset({"NoSuchBucket"}), "no such bucket", "a bucket that is there"),
    (
        frozenset({"QueueDoesNotExist", "NonExistentQueue", "AWS.SimpleQueueService.NonExistentQueue"}),
        "no such queue",
        "a queue that is there",
    ),
    (
        frozenset({"AccessDenied", "Forbidden", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}),
        "no access",
        "credentials that may use it",
    ),
    (
        frozenset({"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
                   "ConnectionError", "ConnectTimeout", "ReadTimeout"}),
        "a server that does not answer",
        "one that does; what was done stays done, so try again later",
    ),
    (
        frozenset({"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "SlowDown", "InternalFailure"}),
        "a server that fails",
        "one that answers; what was done stays done, so try again later",
    ),
)  # fmt: skip
"""Errors of object stores: exception name or error code of the store -> (what was found, what is wanted)."""


def store_fault(path: object, error: BaseException | None) -> InputError | None:
    """Return the error for an unusable object store; None if neither the exception nor its cause says so."""
    while error is not None:
        told = getattr(error, "response", None)
        response = told if isinstance(told, dict) else {}
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        names = {type(error).__name__, str(response.get("Error", {}).get("Code")), str(status)}
        for known, got, wants in STORE_FAULTS:
            if names & known:
                return InputError(path, f"{got} ({reason(error)})", wants)
        error = error.__cause__ or error.__context__
    return None


def missing_array(file: object, key: str, held: list[str]) -> InputError:
    """Return the error for an array that is missing from its file; it lists the arrays in the file."""
    there = ", ".join(held) or "none"
    return InputError(file, f"no dataset '{key}'", f"FILE:DATASET with a dataset that is there: {there}")
