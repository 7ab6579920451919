"""One run per folder: while one run lives, a second is refused; after a crash, the folder is free again.

The operating system's file lock is used; it ends with the process. On file systems without locks, a lock file names
host and process and is touched regularly; a file that was not touched for STALE_S seconds no longer counts.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from deepem.utils.errors import InputError

NAME = ".lock"
BEAT_S, STALE_S = 60.0, 300.0


class Lock:
    """Locks a folder for this process until it ends or `release` is called.

    Args:
        folder: An existing folder.

    Raises:
        InputError: another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._done = threading.Event()
        self._file: IO[str] | None = None
        try:
            self._file = open(self.path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 - held to the end
        except OSError as error:
            raise InputError(self.path, error.strerror or error, "a folder that can be written to") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise self._refusal() from None
        except OSError:  # this file system does not support locks
            self._beat_or_refuse()

    def release(self) -> None:
        """Release the lock."""
        self._done.set()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _beat_or_refuse(self) -> None:
        with suppress(OSError):
            held = bool(self._holder()) and self._holder() != _this_process()
            if held and time.time() - self.path.stat().st_mtime < STALE_S:
                raise self._refusal()
        self.sign()
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            with suppress(OSError):  # a disk that does not answer now may answer next time
                os.utime(self.path)
        with suppress(OSError):
            self.path.write_text("", encoding="utf-8")

    def sign(self) -> None:
        """Say in the file who holds the folder."""
        assert self._file is not None
        try:
            self._file.truncate(0)
            self._file.write(_this_process())
            self._file.flush()
        except OSError as error:
            raise InputError(self.path, error.strerror or error, "a disk that can be written to") from error

    def _holder(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _refusal(self) -> InputError:
        holder = self._holder() or "another process"
        self.release()
        wants = "another name for this run, or that run ended first"
        return InputError(self.path.parent, f"a folder in use by another run ({holder})", wants)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
