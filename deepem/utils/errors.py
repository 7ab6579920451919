"""User-facing messages: errors that the user can fix, and warnings."""

import errno
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: a flag, a file or an argument that cannot be used as given.

    The command line catches this error and prints its message as one line: ``<flag or file>: got X, wants Y``. Any
    other exception is a bug and keeps its traceback.
    """

    def __init__(self, where: object, got: object, wants: object) -> None:
        self.where, self.got, self.wants = str(where), str(got), str(wants)
        super().__init__(f"{where}: got {got}, wants {wants}")

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        """Pickle the three parts, so that the error passes intact from a worker to its parent."""
        return type(self), (self.where, self.got, self.wants)


@contextmanager
def told_as(names: Mapping[str, str]) -> Iterator[None]:
    """Rename parameters in errors to the names that the caller's user knows: ``told_as({"mip": "--in_mip"})``."""
    try:
        yield
    except InputError as error:
        if error.where not in names:
            raise
        raise InputError(names[error.where], error.got, error.wants) from error


def unreadable(where: object, error: OSError) -> InputError:
    """Turn the failure of a plug-in to read a file into an InputError that names the plug-in's code and the file."""
    path = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return InputError(where, path, "a file that can be read")


ENVIRONMENT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "room on the disk, and in the quota"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO), "a disk that answers"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "a place that can be written to"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "more open files: ulimit -n"),
    errno.ENOMEM: "more memory",
}
"""errno -> remedy, the "wants" part of the error."""


def of_environment(error: BaseException) -> InputError | None:
    """Convert a system error (disk, rights, memory, open files) to an InputError; return None for any other error."""
    short = isinstance(error, RuntimeError) and re.search(r"can't allocate memory|out of memory", str(error))
    if isinstance(error, MemoryError) or short:  # torch reports a lack of memory as RuntimeError
        return InputError("memory", reason(error), "more memory, smaller patches or fewer workers")
    if isinstance(error, OSError) and error.errno in ENVIRONMENT:
        where = error.filename if isinstance(error.filename, str) else "a file"
        return InputError(where, error.strerror or error, ENVIRONMENT[error.errno])
    return None


def warn(line: str) -> None:
    """Write a one-line warning to stderr."""
    sys.stderr.write(f"warning: {line}\n")
    sys.stderr.flush()


def reason(error: BaseException) -> str:
    """Return the type and the message of an exception in one short line."""
    words = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())  # some libraries use terminal colours
    return f"{type(error).__name__}: {words[:120]}".removesuffix(": ")
