"""Cut the search for objects into tasks: the part of `deepem.blocks` that is specific to detectors.

The steps of `deepem.test.objects` are the phases. A phase of N tiles is a box of (1, 1, N), and each task takes a
range of it. The results lie in the folder of the plan, and the last task writes the output files.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.blocks.folder import Folder
from deepem.blocks.plan import FILE, Phase, Plan
from deepem.blocks.programs import Effort
from deepem.build.detector import Detector
from deepem.cli.forward_parser import parse
from deepem.io.volume import Volume
from deepem.test.detect import objects_of, write_files
from deepem.test.job import Job
from deepem.test.objects import Objects
from deepem.test.volumes import file_paths, file_volume, voxel_size_of
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles, Vec3

PROGRAM = "objects"


def make_plan(folder: str, words: Sequence[str], task_size: Vec3) -> Plan:
    """Cut the search for objects in one volume into tasks, each with tiles of about `task_size` voxels in total.

    Raises:
        InputError: the command line cannot be used, or does not name exactly one volume and only outputs of objects.
    """
    options, found = parse(words)
    Folder(folder).refuse_unless_new(FILE)
    words = [*words, "--chkpt_num", str(found.number)]  # all workers must use one checkpoint while training goes on
    job = Job(options, found)
    if len(options.volumes) != 1:
        raise InputError("--test_ids", f"{len(options.volumes)} volumes", "one for each plan")
    if job.dense or len(job.objects) != 1:
        names = ", ".join(task.name for task in job.tasks)
        raise InputError(f"--{job.objects[0].flag}", f"the outputs {names}", "that one alone in a plan")
    with file_volume(job, options.volumes[0]) as volume:
        objects = objects_of(job, volume, _parts(folder))
    tile = max(job.patch[0] * job.patch[1] * job.patch[2], 1)
    some = max(task_size[0] * task_size[1] * task_size[2] // tile, 1)
    steps = {"find": (len(objects.grid), some), "merge": (1, 1), "count": (len(objects.blocks), 1),
             "number": (1, 1), "write": (1, 1)}  # fmt: skip
    phases = [Phase(name, Tiles(Box((0, 0, 0), (1, 1, n)), (1, 1, each))) for name, (n, each) in steps.items()]
    voxels = volume.size[0] * volume.size[1] * volume.size[2]
    settings = {"words": words, "voxels": voxels, "tiles": len(objects.grid)}
    return Plan.create(folder, PROGRAM, settings, phases)


def open_tasks(plan: Plan) -> ObjectTasks:
    """Open the network and the volume of a plan."""
    job, stack = Job(*parse(plan.settings["words"])), ExitStack()
    name = job.options.volumes[0]
    volume = stack.enter_context(file_volume(job, name))
    return ObjectTasks(job, name, volume, objects_of(job, volume, _parts(plan.folder)), stack)


def effort(plan: Plan) -> Effort:
    """Return what a plan costs."""
    return Effort(plan.settings["voxels"], plan.settings["tiles"], plan.settings["tiles"])


def rate(plan: Plan) -> float:
    """Measure the network's voxels per second on this machine, in a trial of two tiles."""
    tasks = open_tasks(plan)
    for _ in range(2):  # warm up: the first call sets up what later calls reuse
        begun = time.monotonic()
        tasks.detect(tasks.objects.grid[0].box)
    return float(plan.settings["voxels"] / plan.settings["tiles"] / (time.monotonic() - begun))


def _parts(folder: str) -> Folder:
    return Folder(f"{folder.rstrip('/')}/objects")


@dataclass(frozen=True)
class ObjectTasks:
    """Run the tasks of a plan; the network, the volume and the steps stay open from task to task."""

    job: Job
    name: str
    volume: Volume
    objects: Objects
    stack: ExitStack

    @property
    def detect(self) -> Detector:
        """The detector, which finds the objects in a box."""
        row, amp = self.job.objects[0], self.job.options.speed.amp
        return Detector(self.job.model, row.name, self.volume, self.job.device, amp)

    def do(self, phase: str, box: Box, label: str) -> dict[str, Any]:
        """Do a range of a step, and return the checksums of the files written."""
        numbers = range(box.begin[2], box.end[2])
        if phase == "find":
            for number in numbers:
                self.objects.find(number, self.detect)
            return self._left(f"tiles/{n}.npz" for n in numbers)
        fresh = Objects(self.objects.folder, self.objects.size, self.job.patch, self.objects.overlap,
                        self.objects.blocks.tile, self.objects.threshold)  # fmt: skip
        if phase == "merge":
            fresh.merge()
            return self._left(["kept.npz"])
        if phase == "count":
            for number in numbers:
                fresh.count(number)
            return self._left(f"blocks/{n}.npz" for n in numbers)
        if phase == "number":
            fresh.number()
            return self._left(["table.npz"])
        return {"written": {str(path): _crc(path.read_bytes()) for path in self._write(fresh)}}

    def holds(self, phase: str, marker: Mapping[str, Any]) -> bool:
        """Whether the files of a task match its marker."""
        if "written" in marker:
            held = {path: Path(path).read_bytes() if Path(path).is_file() else None for path in marker["written"]}
        else:
            held = {name: self.objects.folder.get(name) for name in marker["left"]}
        sums: Mapping[str, int] = marker.get("written", marker.get("left", {}))
        return all(value is not None and _crc(value) == sums[name] for name, value in held.items())

    def _left(self, names: Any) -> dict[str, Any]:
        return {"left": {name: _crc(self.objects.folder.get(name) or b"") for name in names}}

    def _write(self, objects: Objects) -> list[Path]:
        options, row = self.job.options, self.job.objects[0]
        path = file_paths(options, self.job.files, self.job.number, self.name)[row.name]
        source = Path(options.files.data_dir) / self.name / options.files.input_name
        voxel_size = voxel_size_of(options, self.volume, self.job.sizes.factor)
        return write_files(objects, row, self.volume, path, source, voxel_size)


def _crc(held: bytes) -> int:
    return zlib.crc32(held)
