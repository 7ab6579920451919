"""One run per folder: the second is refused while the first lives, and a crash leaves nothing that keeps others out.

The lock is the system's, which ends with the process. Where the file system has none, a file says host, process and
when it was last touched; it counts as left behind after STALE_S without a touch.
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
    """Holds a folder for this process until it ends or `release` is called.

    Args:
        folder: It must be there.

    Raises:
        InputError: another process holds it.
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
        except OSError:  # this file system has no locks
            self._beat_or_refuse()

    def release(self) -> None:
        """Let go of the folder."""
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
            with suppress(OSError):  # a disk that does not answer now may answer the next time
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
        wants = "another exp_name, or that run ended first"
        return InputError(self.path.parent, f"a folder in use by another run ({holder})", wants)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
