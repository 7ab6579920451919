"""What is said when a file cannot be read or written: one line that names the file and the remedy."""

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
"""What libraries raise over a file that is damaged or not what its name says."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a quota, and a limit on the size of a file."""

EXTRAS = {"zarr": "zarr", "imagecodecs": "tiff", "tensorstore": "zarr"}
"""Optional package -> the extra of this project that brings it."""


@contextmanager
def readable(file: object, form: str) -> Iterator[None]:
    """Turn what a library raises over a damaged file into one line that names the file.

    Raises:
        InputError: the block failed with one of `FAULTS`, or a package is missing.
    """
    try:
        yield
    except InputError:
        raise
    except (*FAULTS, ImportError) as error:
        raise unreadable_file(file, form, error) from error


def unreadable_file(file: object, form: str, error: Exception) -> InputError:
    """What to say of a file that a library failed to read."""
    if (told := missing_package(file, error)) is not None:
        return told
    if isinstance(error, PermissionError | IsADirectoryError):
        return InputError(file, error.strerror or reason(error), f"a readable {form} file")
    if isinstance(error, MemoryError):
        return InputError(file, f"more than fits into memory ({reason(error)})", "a smaller volume")
    return InputError(file, f"a file that cannot be read ({reason(error)})", f"a whole {form} file")


def missing_package(file: object, error: Exception) -> InputError | None:
    """What to say if a read failed for want of an optional package; None if it failed for another reason."""
    name = error.name if isinstance(error, ImportError) else None
    if name is None and "imagecodecs" in str(error):  # tifffile asks for it by a ValueError
        name = "imagecodecs"
    if name is None:
        return None
    package = name.split(".")[0]
    remedy = f"pip install 'deepem[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"
    return InputError(file, f"a file that cannot be read without the package {package}", remedy)


def refuse_special(file: str) -> None:
    """Refuse a pipe, a socket or a device: opening one may wait for ever.

    Raises:
        InputError: the path is neither a file nor a folder.
    """
    mode = os.stat(file).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(file, "a pipe, socket or device", "a file")


def unwritable(path: object, error: Exception) -> InputError:
    """What to say when a disk cannot take an output."""
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
"""What goes wrong in an object store, by the exception's name or the store's code: what there is, what is wanted."""


def store_fault(path: object, error: BaseException | None) -> InputError | None:
    """What to say of an object store that cannot be used; None if neither the exception nor its cause is about that."""
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
    """What to say of an array that is not in its file: those that are."""
    there = ", ".join(held) or "none"
    return InputError(file, f"no dataset '{key}'", f"FILE:DATASET with a dataset that is there: {there}")
