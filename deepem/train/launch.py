"""Launches one process per GPU of this machine."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deepem.build.device import choose_device
from deepem.utils.errors import warn
from deepem.utils.exit_codes import STOPPED

POLL_S = 0.2

ABORT_S = 3.0
"""Seconds to wait for the code of another process once one has aborted: gloo may abort a process whose peer fails."""

LAUNCHER = "DEEPEM_LAUNCHER"
"""Environment variable that tells a rank the process id of its launcher."""


def end_with_launcher() -> None:
    """Ask the system to send this rank SIGTERM when its launcher ends, even if the launcher is killed (Linux)."""
    launched = LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if sys.platform != "linux" or not launched or "RANK" not in os.environ:
        return
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):  # the launcher ended before this request
        signal.raise_signal(signal.SIGTERM)


def launch_on(gpus: Sequence[int], cpu: bool, program: Path, words: Sequence[str]) -> int:
    """Run a program once per GPU, or the same number of times on the CPU, and return its exit code.

    Raises:
        InputError: one of the GPUs does not exist.
    """
    for gpu in gpus:
        choose_device(gpu, cpu)
    return launch(program, words, len(gpus))


def launch(program: Path, words: Sequence[str], count: int) -> int:
    """Run a program `count` times side by side and return its exit code, as ``torchrun --nproc_per_node`` would.

    The first process that fails ends all others. A request to stop is forwarded to every process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common[LAUNCHER] = str(os.getpid())
    started: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: object) -> None:
        for process in started:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, hand_on)
    signal.signal(signal.SIGUSR1, hand_on)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, hand_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all processes itself
    try:
        for rank in range(count):
            env = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            if "OMP_NUM_THREADS" not in env:
                env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
            started.append(subprocess.Popen([sys.executable, str(program), *words], env=env))
        patience = round(ABORT_S / POLL_S)  # polls to wait once the only failures are aborts
        while True:
            codes = [process.poll() for process in started]
            failed = [(rank, code) for rank, code in enumerate(codes) if code not in (None, 0, STOPPED)]
            causes = [(rank, code) for rank, code in failed if code != -signal.SIGABRT]
            if causes or (failed and (None not in codes or patience == 0)):
                return STOPPED if STOPPED in codes else _told(*(causes or failed)[0])
            if None not in codes:
                return max(code or 0 for code in codes)
            if failed:
                patience -= 1
            time.sleep(POLL_S)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def _told(rank: int, code: int) -> int:
    """Convert the return code of a failed process to an exit code, and report a process that a signal killed."""
    if code > 0:
        return code
    name = signal.Signals(-code).name
    memory = ", which is also how the system ends a process when memory is short" * (name == "SIGKILL")
    warn(f"rank {rank} was ended by {name}{memory}; all are ended")
    return 128 - code
