"""Section 5: a minute of experiments/fib25 at full speed, and the loss on the sections that it does not train on.

`deepem train` runs in a process of its own until the time is over, then it is asked to stop. Every evaluation is a
figure: the loss on z 100:140, after how many iterations and seconds of training on z 0:100.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from figures import arguments, device_of, figure

ROOT = Path(__file__).resolve().parents[3]
NAME = "learning"
STOPPED = 85
"""The exit code of a run that was asked to stop."""
POLL_S = 0.2
START_S = 60.0
"""The first step must come within this time."""

FULL = "--lr_schedule constant --max_iter 1000000 --eval_intv 200 --eval_iter 16 --avgs_intv 50 --warm_up 1"
SMALL = "--fov 4,32,32 --width 2 3 4 --edges 0,0,4 0,4,0 --max_iter 6 --eval_intv 3 --eval_iter 2 --warm_up 1"
NO_PICTURES = "--imgs_intv 1000000"


def words(fib25: Path | None, small: bool, gpu: bool) -> list[str]:
    """Return the command line of the run."""
    workers = str(1 if small else max(1, min(8, (os.cpu_count() or 2) - 1)))
    found = [f"@{ROOT / 'experiments' / 'fib25' / 'train.args'}", *(SMALL if small else FULL).split()]
    found += [*NO_PICTURES.split(), "--num_workers", workers, "--exp_name", NAME, *([] if gpu else ["--cpu"])]
    data = ["--data", "synthetic", "--synth_size", "24,96,96"] if fib25 is None else ["--data_dir", str(fib25)]
    return [*found, *data]


class Log:
    """The rows that a run has written so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, 0
        self.rows: list[dict[str, Any]] = []
        self.began = 0.0

    def read(self) -> None:
        """Read new rows; tell each evaluation."""
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        for row in map(json.loads, lines[len(self.rows) :]):
            self.began = self.began or time.perf_counter()
            self.rows.append(row)
            if row["phase"] == "test":
                self.told += 1
                heads = {key: value for key, value in row.items() if key not in ("iter", "phase")}
                figure(f"after {row['iter']} iterations", seconds=time.perf_counter() - self.began, **heads)

    def seconds(self) -> float:
        """Return how long the run has trained, evaluations included."""
        return time.perf_counter() - self.began if self.began else 0.0


def trained(command: list[str], minute: float, start: float, log: Log) -> int:
    """Train until the time is over, or until no first step comes in time, and return the exit code."""
    asked = time.perf_counter()
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            log.read()
            if log.seconds() > minute or (not log.began and time.perf_counter() - asked > start):
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)
            time.sleep(POLL_S)
    finally:
        if process.poll() is None:
            process.kill()
    log.read()
    return process.returncode


def main() -> None:
    """Train for a minute."""
    args = arguments(__doc__, ("--fib25", {"type": Path}), ("--minute", {"type": float, "default": 60.0}))
    gpu = device_of(args.small).type == "cuda"
    if args.fib25 is None and not args.small:
        sys.exit("no fib25: gpu.sh --packed FOLDER, or --fib25 FOLDER that holds fib25/img.h5 and fib25/seg.h5")
    shutil.rmtree(args.out / "experiments" / NAME, ignore_errors=True)
    fib25 = args.fib25.resolve() if args.fib25 else None
    os.chdir(args.out)
    log = Log(args.out / "experiments" / NAME / "logs" / "metrics.jsonl")
    minute, start = (math.inf, math.inf) if args.small else (args.minute, START_S)  # a small run ends by itself
    code = trained([sys.executable, "-m", "deepem", "train", *words(fib25, args.small, gpu)], minute, start, log)
    paces = sorted(row["it_per_s"] for row in log.rows if row["phase"] == "train")
    tests = [row["loss"] for row in log.rows if row["phase"] == "test"]
    if code not in (0, STOPPED) or not tests or not paces:
        sys.exit(f"deepem train ended with exit code {code} after {len(log.rows)} rows, {len(tests)} evaluations")
    figure(
        "the run",
        iterations=log.rows[-1]["iter"], it_per_s=paces[len(paces) // 2], seconds=log.seconds(),
        first_loss=tests[0], last_loss=tests[-1], least_loss=min(tests),
        target="a loss on z 100:140 that falls",
        note="fib25, z 0:100 trained, z 100:140 evaluated" if fib25 else "synthetic tissue: no fib25 was given",
    )  # fmt: skip


if __name__ == "__main__":
    main()
