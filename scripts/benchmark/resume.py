"""Kill a training run at random moments, again and again, and compare it with one that was left alone.

    python scripts/benchmark/resume.py --kills 100

A run saves after every step while SIGKILL falls on it at random moments, in the middle of writing included. After each
kill the newest checkpoint must be readable; at the end weights, optimiser and log must be those of an uninterrupted
run, bit for bit. Then the disk fills up: the run must end with exit code 2 and leave its checkpoints readable.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from deepem.data.dataset import synthetic
from deepem.train import run
from deepem.utils import checkpoint

# fmt: off
WORDS = [
    "--data", "volumes.py", "--data_dir", ".", "--aff", "1", "--mit", "0.5", "--fov", "4,32,32", "--width", "4",
    "8", "--cpu", "--num_workers", "1", "--chkpt_intv", "1", "--eval_intv", "7", "--eval_iter", "2", "--avgs_intv",
    "3", "--warm_up", "0", "--imgs_intv", "1000000", "--ema", "0.99", "--augment", "grayscale_warping",
    "--grayscale", "--keep", "5",
]
# fmt: on


DATASET = """
from pathlib import Path
import numpy as np
data_info = ["v1", "v2", "v3"]
splits = {"train": ["v1", "v2"], "val": ["v3"]}
def load_data(data_dir, data_ids=None, **_):
    return {i: dict(np.load(Path(data_dir) / f"{i}.npz")) for i in data_ids}
"""


def prepare() -> None:
    """Write small volumes, and the module that reads them."""
    for name, volume in synthetic.load_data(labels=("seg", "mit"), synth_size=(16, 64, 64)).items():
        np.savez(f"{name}.npz", **{key: array for key, array in volume.items() if key in ("img", "seg", "mit")})
    Path("volumes.py").write_text(DATASET)


def start(name: str, steps: int, limit: int | None = None) -> int:
    """Fork a process that trains; its id."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(f"{name}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            run.main([*WORDS, "--exp_name", name, "--max_iter", str(steps)])
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)
    return child


def wait(child: int) -> int:
    """The exit code, or less the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def newest(name: str) -> int:
    """Number of the newest checkpoint, which must be readable; 0 if there is none."""
    models = Path("experiments", name, "models")
    if numbers := checkpoint.numbers(models):
        checkpoint.read(checkpoint.path_of(models, numbers[-1]))
        return numbers[-1]
    return 0


def rows(name: str) -> list[dict[str, object]]:
    """The log, less what a clock decides."""
    lines = Path("experiments", name, "logs", "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in ("it_per_s", "data_wait")} for x in lines]


def equal(a: object, b: object) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600, help="stop killing after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds a run is left alone at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, kills, began, torn = random.Random(args.seed), 0, time.monotonic(), 0
    steps = 10**6
    with tempfile.TemporaryDirectory() as folder, working_in(folder):
        prepare()
        while kills < args.kills and time.monotonic() - began < args.seconds:
            child = start("killed", steps)
            time.sleep(rng.uniform(0, args.longest))
            os.kill(child, signal.SIGKILL)
            assert wait(child) == -signal.SIGKILL
            kills += 1
            torn += len(list(Path("experiments/killed/models").glob(".*.part")))
            newest("killed")
        done = newest("killed")
        print(f"{kills} kills by SIGKILL, {torn} of them while a checkpoint was written: every newest one was readable")
        steps = done + 3
        assert wait(start("killed", steps)) == 0, Path("killed.err").read_text()[-2000:]
        assert wait(start("whole", steps)) == 0
        a, b = (checkpoint.read(Path("experiments", n, "models", f"model{steps}.chkpt")) for n in ("killed", "whole"))
        same = {key: equal(a[key], b[key]) for key in ("state_dict", "ema", "optimizer", "averages")}
        print(f"after {steps} steps, equal to the bit: {same}; log rows: {rows('killed') == rows('whole')}")

        size = (Path("experiments/whole/models") / f"model{steps}.chkpt").stat().st_size
        code = wait(start("whole", steps + 3, limit=size // 2))
        line = Path("whole.err").read_text().splitlines()[-1]
        print(f"full disk: exit code {code}, newest readable checkpoint {newest('whole')} of {steps}; {line}")
        ok = all(same.values()) and rows("killed") == rows("whole") and code == 2 and newest("whole") == steps
        raise SystemExit(not ok)


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    """The working directory for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    main()
