"""How fast training is: the best settings against eager float32, the loop against the bare step, samples per worker.

    python scripts/benchmark/training.py --fov 8,96,96 --rounds 7

Every figure is a ratio of medians taken in one process on one machine, the two sides by turns.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from deepem.build.samplers import Samplers, create_samplers
from deepem.cli.train_parser import parse
from deepem.data.loader import batches
from deepem.train import device, run, session
from deepem.train.objective import Outputs
from deepem.train.session import Session, prepare
from deepem.utils.allocator import keep_memory

EAGER = ["--amp", "off", "--no-channels_last", "--no-tf32", "--no-cudnn_benchmark"]
BEST: dict[str, dict[str, list[str]]] = {
    "cpu": {
        "best defaults": [],
        "best defaults, compiled": ["--compile"],
        "small convolutions alone": ["--amp", "off", "--no-channels_last"],
        "bf16": ["--amp", "bf16"],
        "bf16 alone": ["--amp", "bf16", "--no-channels_last"],
        "float32, channels_last": ["--amp", "off", "--channels_last"],
    },
    "cuda": {
        "best defaults": [],
        "best defaults, compiled": ["--compile"],
        "cuDNN chooses": ["--amp", "off", "--no-tf32", "--no-channels_last"],
        "TF32": ["--amp", "off", "--no-channels_last"],
        "TF32, channels_last": ["--amp", "off", "--channels_last"],
        "bf16": ["--amp", "bf16", "--no-channels_last"],
        "bf16, channels_last": ["--amp", "bf16", "--channels_last"],
        "bf16, channels_last, compiled": ["--amp", "bf16", "--channels_last", "--compile"],
        "fp16, channels_last": ["--amp", "fp16", "--channels_last"],
    },
}


def default_memory() -> None:
    """Undo `keep_memory`: glibc's own thresholds."""
    for threshold in (-3, -1, -2):
        ctypes.CDLL(None).mallopt(threshold, 128 << 10)


SAMPLERS: list[Samplers] = []
"""Of the words of this program, made once: no setting here changes them."""


def shared_samplers(*args: Any) -> Samplers:
    """The samplers of a run."""
    if not SAMPLERS:
        SAMPLERS.append(create_samplers(*args))
    return SAMPLERS[0]


def made(words: list[str], more: list[str]) -> Session:
    """A run of these words, in memory."""
    with mock.patch.object(session, "create_samplers", shared_samplers):
        return prepare(parse([*words, *more]))


def first_batch(of: Session) -> dict[str, torch.Tensor]:
    """The first batch, on the device."""
    of.inputs.start(1, 1)
    return of.inputs.next_batch(1)


def bare_step(of: Session, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """Forward, loss, backward and optimiser on one batch, as a user would write them by hand."""
    trainer = of.trainer
    layout = torch.channels_last_3d if trainer.settings.channels_last else torch.contiguous_format

    def step() -> None:
        with trainer.precision.autocast():
            outputs = Outputs(trainer.model(batch["input"].contiguous(memory_format=layout)))
        loss = trainer.objective.weighted_sum(trainer.objective.losses(outputs, batch))
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.precision.scaler.scale(loss).backward()
        trainer.precision.scaler.step(trainer.optimizer)
        trainer.precision.scaler.update()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def settled(of: Session) -> None:
    """What torch keeps for the whole process, as the run wants it."""
    speed = of.options.speed
    device.configure(
        of.trainer.device, tf32=speed.tf32, cudnn_benchmark=speed.cudnn_benchmark, deterministic=speed.deterministic
    )


def seconds(function: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def settings(words: list[str], rounds: int) -> None:
    """Step time of each setting against eager float32 with torch's own optimiser and glibc's own memory.

    On a GPU the memory that a step takes, too, beside weights and batch.
    """
    eager = made(words, EAGER)
    for module in eager.trainer.network.modules():  # as torch has them
        if isinstance(module, torch.nn.Conv3d):
            module.__class__ = torch.nn.Conv3d
    eager.trainer.optimizer = torch.optim.Adam(eager.trainer.network.parameters(), lr=1e-3)
    batch = first_batch(eager)
    sides = {"eager float32": (default_memory, eager), "eager float32, memory kept": (keep_memory, eager)}
    if eager.trainer.device.type == "cuda":
        del sides["eager float32, memory kept"]
    sides |= {name: (keep_memory, made(words, more)) for name, more in BEST[eager.trainer.device.type].items()}
    steps = {name: bare_step(of, batch) for name, (_, of) in sides.items()}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, (use_memory, of) in sides.items():
            use_memory()
            settled(of)
            if number == 0 and of.trainer.device.type == "cuda":  # algorithms are chosen, the network is compiled
                steps[name]()
            memory[name] = -allocated(of.trainer.device)
            taken[name].append(seconds(steps[name]))
            memory[name] += allocated(of.trainer.device, peak=True)
    first = taken["eager float32"][1:]
    for name, values in taken.items():
        ratio = statistics.median(a / b for a, b in zip(first, values[1:], strict=True))
        mib = f"  {memory[name] >> 20:6d} MiB" if memory[name] else ""
        print(f"{name:30} {statistics.median(values[1:]) * 1e3:8.1f} ms  {ratio:5.2f} x{mib}")


def allocated(on: torch.device, *, peak: bool = False) -> int:
    """Bytes on a GPU, now or at most since the last time this was asked without `peak`; 0 on a CPU."""
    if on.type == "cpu":
        return 0
    if peak:
        return torch.cuda.max_memory_allocated(on)
    torch.cuda.reset_peak_memory_stats(on)
    return torch.cuda.memory_allocated(on)


def loop(words: list[str], rounds: int, steps: int) -> None:
    """The whole program against the bare step on random tensors: what loading, logging and guarding cost."""
    shares, waits = [], []
    one = made(words, [])
    batch = {key: torch.rand_like(value) if value.is_floating_point() else value.clone() for key, value in
             first_batch(one).items()}  # fmt: skip
    step = bare_step(one, batch)
    step()
    log = Path("experiments/loop/logs/metrics.jsonl")
    for number in range(1, rounds + 1):
        before = statistics.median(seconds(step) for _ in range(steps))
        often = ["--avgs_intv", "10", "--warm_up", "0", "--imgs_intv", "1000000", "--eval_intv", "1000000"]
        run.main([*words, *often, "--exp_name", "loop", "--max_iter", str(number * (steps + 10))])
        rows = [json.loads(line) for line in log.read_text().splitlines()][-steps // 10 :]
        after = statistics.median(seconds(step) for _ in range(steps))
        taken = statistics.median(1 / row["it_per_s"] for row in rows)
        shares.append((before + after) / 2 / taken)
        waits.append(statistics.median(row["data_wait"] for row in rows) / taken)
    print(
        f"loop against bare step: {statistics.median(shares):.1%} of its speed, {statistics.median(waits):.1%} waiting"
    )


def workers(words: list[str], counts: list[int], samples: int) -> None:
    """Samples per second of the loader alone."""
    one = made(words, [])
    for count in counts:
        stream = batches(
            one.inputs.samplers.train,
            seed=0,
            phase="train",
            start=0,
            stop=samples + 2 * count + 1,
            batch_size=1,
            num_workers=count,
        )
        for _ in range(2 * count + 1):
            next(stream)
        took = seconds(lambda: [next(stream) for _ in range(samples)])  # noqa: B023
        print(f"{count} workers: {samples / took:.1f} samples/s")


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fov", default="8,96,96", metavar="Z,Y,X")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of the loop, per round, a multiple of 10")
    parser.add_argument(
        "--only", nargs="+", choices=["settings", "loop", "workers"], default=["settings", "loop", "workers"]
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further words for run.py")
    args = parser.parse_args()
    size = [max(3 * int(n) // 2, 32) for n in args.fov.split(",")]
    words: list[Any] = ["--data", "synthetic", "--synth_size", ",".join(map(str, size)), "--aff", "1", "--mit", "0.5"]
    words += ["--fov", args.fov, "--augment", "grayscale_warping", "--grayscale", "--warping", *args.more]
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"patch {args.fov}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if "settings" in args.only:
            settings(words, args.rounds)
        if "loop" in args.only:
            loop(words, args.rounds, args.steps)
        if "workers" in args.only:
            workers(words, args.workers, 4 * args.steps)
        os.chdir("/")


if __name__ == "__main__":
    main()
