"""A program of two phases: sums of the voxels of blocks, then the sum of those sums, each written to a file.

The voxel at (z, y, x) has the value 10000 * z + 100 * y + x. TOY_DIES_IN names a task in which the process kills itself
when half of its output is written.
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

from deepem.blocks.plan import Phase, Plan
from deepem.blocks.programs import Effort
from deepem.utils.geometry import Box, Tiles


def make_plan(folder, words, task_size):
    whole = Box((2, 3, 4), (6, 9, 11))
    phases = [Phase("sums", Tiles(whole, task_size)), Phase("total", Tiles(whole, whole.size))]
    return Plan.create(folder, "toy", {"out": words[0]}, phases)


def open_tasks(plan):
    return Toy(plan)


def effort(plan):
    voxels = sum(phase.boxes.whole.voxels for phase in plan.phases)
    return Effort(voxels, len(plan), len(plan.phases))


def rate(plan):
    return 1.0


class Toy:
    def __init__(self, plan):
        self.out, self.sums = Path(plan.settings["out"]), plan.phases[0].boxes

    def do(self, phase, box, label):
        if phase == "sums":
            ranges = itertools.product(*(range(b, e) for b, e in zip(*box, strict=True)))
            value = sum(10000 * z + 100 * y + x for z, y, x in ranges)
        else:
            value = sum(int(self.file("sums", one).read_text()) for one in self.sums)
        text = f"{value:020}"
        self.out.mkdir(parents=True, exist_ok=True)
        if label == os.environ.get("TOY_DIES_IN"):
            self.file(phase, box).write_text(text[:10])
            os.kill(os.getpid(), signal.SIGKILL)
        self.file(phase, box).write_text(text)
        return {"file": str(self.file(phase, box)), "text": text}

    def holds(self, phase, marker):
        file = Path(marker["file"])
        return file.exists() and file.read_text() == marker["text"]

    def file(self, phase, box):
        return self.out / f"{phase}_{'-'.join(map(str, box.begin))}"
