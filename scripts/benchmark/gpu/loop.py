"""Section 3: the training loop against the bare step, for several numbers of workers, and where the rest goes.

The loop is `deepem train`, in this process; its pace is the median over the rows of its log. The bare step runs before
and after it, in the same precision. `share` is the bare step over the loop's. The rest is read from the trace that
`--profile` writes: the device's idle time per step by the stage in which the program was meanwhile, and how much longer
than the bare step the device was busy.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
from pathlib import Path

import torch
from bare import TASKS, Setting, Step
from figures import arguments, attempt, device_of, figure, median_seconds
from timeline import Timeline, length, within

from deepem.train import run

RECIPES = {
    "grayscale_warping": "--augment grayscale_warping --grayscale --warping",
    "flyem.aug_mip1": "--augment flyem.aug_mip1 --missing {sections} --blur {sections} --box noise --lost --random",
}
TARGET = "share 0.98"


class Loop:
    """The runs of one size.

    Args:
        small: Tiny sizes.
        device: Where they run.
    """

    def __init__(self, small: bool, device: torch.device) -> None:
        self.device, self.gpu = device, device.type == "cuda"
        self.patch, width = ((4, 16, 16), [2, 3, 4, 5]) if small else ((20, 256, 256), None)
        self.sections = 2 if small else 7
        self.setting = Setting("bf16" if self.gpu else "off", self.gpu, channels_last=self.gpu)
        self.step = Step(self.patch, device, self.setting, width)
        self.steps, self.row, profiled = (12, 4, 2) if small else (80, 20, 8)
        volume = [max(n + n // 2, 32) for n in self.patch]
        self.words = [
            *("--data", "synthetic", "--synth_size", ",".join(map(str, volume)), *TASKS.split()),
            *("--fov", ",".join(map(str, self.patch)), *self.setting.words),
            *([] if width is None else ["--width", *map(str, width)]),
            *("--max_iter", str(self.steps), "--avgs_intv", str(self.row), "--warm_up", "0"),
            *("--imgs_intv", "1000000", "--eval_intv", "1000000", "--profile", str(profiled)),
            *([] if self.gpu else ["--cpu"]),
        ]
        self.bare_steps = 3 if small else 10
        self.bare()  # algorithms are chosen, clocks rise

    def bare(self) -> float:
        """Return the seconds of a bare step now."""
        return median_seconds(self.step, self.bare_steps, self.device)

    def measure(self, recipe: str, workers: int) -> None:
        """Train with some workers and tell how fast that was."""
        name = f"{recipe.replace('.', '_')}_{workers}"
        shutil.rmtree(Path("experiments", name), ignore_errors=True)
        before = self.bare()
        augment = RECIPES[recipe].format(sections=self.sections).split()
        run.main([*self.words, *augment, "--num_workers", str(workers), "--exp_name", name])
        bare = (before + self.bare()) / 2
        logs = Path("experiments", name, "logs")
        rows = [json.loads(line) for line in (logs / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["phase"] == "train"][1:]  # the first one has the start and the trace
        taken = statistics.median(1 / row["it_per_s"] for row in rows)
        figure(
            f"{recipe}, {workers} workers",
            share=bare / taken, bare_ms=bare * 1e3, loop_ms=taken * 1e3,
            waiting_for_data_ms=statistics.median(row["data_wait"] for row in rows) * 1e3, target=TARGET,
        )  # fmt: skip
        self.rest(f"{recipe}, {workers} workers, where the rest goes", Timeline(logs / "trace.json"), bare)

    def rest(self, case: str, trace: Timeline, bare: float) -> None:
        """Tell where the time of a profiled step goes; profiling itself makes steps longer."""
        steps, (begin, end) = len(trace.steps), trace.window
        stages = trace.idle_by_stage() if self.gpu else trace.by_stage()
        told = ", ".join(f"{name} {us / steps / 1e3:.2f} ms" for name, us in stages.most_common() if us > 0)
        waits = ", ".join(f"{name} {us / steps / 1e3:.2f} ms" for name, us in trace.waiting().most_common(4))
        profiled = {"profiled_step_ms": (end - begin) / steps / 1e3}
        if not self.gpu:
            figure(case, **profiled, note=f"the program by stage: {told}")
            return
        busy = length(within(trace.busy, trace.window)) / steps / 1e3
        figure(
            case, **profiled, busy_ms=busy, idle_ms=length(trace.idle()) / steps / 1e3,
            busy_beyond_bare_ms=busy - bare * 1e3, note=f"idle: {told}; the program waits in {waits}",
        )  # fmt: skip


def main() -> None:
    """Measure every recipe with every number of workers."""
    args = arguments(__doc__, ("--workers", {"type": int, "nargs": "+", "default": [2, 4, 8, 16]}))
    os.chdir(args.out)
    went_well, loop = True, Loop(args.small, device_of(args.small))
    for workers in args.workers:
        for recipe in RECIPES:
            case = f"{recipe}, {workers} workers"
            went_well &= attempt(case, lambda r=recipe, w=workers: loop.measure(r, w))
    raise SystemExit(not went_well)


if __name__ == "__main__":
    main()
