"""One run per folder: the second is refused, and a crash leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepem.runs import lock
from deepem.runs.lock import Lock
from deepem.utils.errors import InputError

HOLDER = """
import os, sys
from pathlib import Path
from deepem.runs.lock import Lock
held = Lock(Path(sys.argv[1]))
held.sign()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path, verb_env):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], env=verb_env, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_has_one_holder_at_a_time(tmp_path, holder):
    with pytest.raises(InputError, match=f"a folder in use by another run \\(process {holder.pid} on "):
        Lock(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    Lock(tmp_path).release()


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)


def test_where_the_file_system_has_no_locks_a_heartbeat_keeps_others_out(tmp_path, without_locks):
    held: Path = tmp_path / lock.NAME
    held.write_text("process 1 on elsewhere")
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        Lock(tmp_path)
    old = held.stat().st_mtime - lock.STALE_S - 1
    os.utime(held, (old, old))
    mine = Lock(tmp_path)
    assert held.read_text() == f"process {os.getpid()} on {os.uname().nodename}"
    mine.release()


def test_a_heartbeat_beats_and_ends_with_the_run(tmp_path, without_locks, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    mine = Lock(tmp_path)
    os.utime(mine.path, (0, 0))
    while mine.path.stat().st_mtime == 0:
        pass
    mine.release()
    while mine.path.read_text():
        pass
    Lock(tmp_path).release()
