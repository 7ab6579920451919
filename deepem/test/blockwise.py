"""Cut a prediction into tasks: the part of `deepem.blocks` that is specific to inference.

A task covers whole chunks of the output volumes. It computes every patch that touches its box, on the patch grid of the
whole volume, so the result is the same to the bit wherever the cuts are. A task writes its output, reads it back, and
then writes a marker with a checksum of every block.
"""

from __future__ import annotations

import io
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepem.blocks.folder import Folder
from deepem.blocks.plan import FILE, Phase, Plan
from deepem.blocks.programs import Effort, program
from deepem.cli.forward_parser import parse
from deepem.io.chunks import get, put
from deepem.io.cloud_sink import CloudSink
from deepem.io.precomputed import CloudSource
from deepem.io.stored import warn_of_absent
from deepem.io.views import tables_of
from deepem.scan.kinds import is_dense
from deepem.test.job import Job
from deepem.test.prepared import Prepared, with_context
from deepem.test.volumes import Placement, cloud_volume, placement, stored
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles, Vec3, vec3
from deepem.utils.intensity import Percentiles

Array = NDArray[Any]

MACHINE = "GPU"
PHASE = "predict"
TABLES = "tables.npy"
DOWNSAMPLE = (
    "no such flag for a plan; once all tasks are done: python -c "
    "'from deepem.io.pyramid import downsample; downsample(\"PATH OF THE OUTPUT VOLUME\")'"
)


def make_plan(folder: str, words: Sequence[str], task_size: Vec3) -> Plan:
    """Cut the prediction of a command line into tasks of about `task_size` (z, y, x), and create the output volumes.

    Raises:
        InputError: the command line cannot be used, or lacks --gs_input or --gs_output.
    """
    options, found = parse(words)
    if not options.cloud.gs_input and not all(map(is_dense, options.tasks.chosen)):
        return program("objects").make_plan(folder, words, task_size)
    if not options.cloud.gs_input:
        raise InputError("--gs_input", "nothing", "the volume behind cloud-volume that the tasks read")
    if options.cloud.downsample:  # no single task could do it
        raise InputError("--downsample", "a plan", DOWNSAMPLE)
    if min(task_size) < 1:
        raise InputError("--task_size", ",".join(map(str, task_size[::-1])), "three sizes x,y,z of 1 or more")
    Folder(folder).refuse_unless_new(FILE)
    words = [*words, "--chkpt_num", str(found.number)]  # all workers must use one checkpoint while training goes on
    job = Job(options, found)
    if isinstance(job.intensity, Percentiles):  # every worker would have to read the whole volume
        got = "percentiles of each volume as the range of grey values"
        raise InputError("a plan", got, "a network trained on one range, such as --percentiles_of train")
    norm = options.cloud.gs_input_norm
    tables = None if norm is None else tables_of(with_context(job, stored(options, options.cloud.gs_input)), *norm)
    volume, source = cloud_volume(job, tables)
    covered = job.covered(volume)
    place = placement(job, volume, source, covered)
    with place.sink() as sink:
        boxes = Tiles(covered, vec3(max(1, round(n / c)) * c for n, c in zip(task_size, sink.chunk, strict=True)))
        settings = {
            "words": words,
            "patches": job.patches_tiled(volume, covered, boxes.tile),
            "uncut": job.patches(volume, covered),
        }
        files = {} if tables is None else {TABLES: _bytes_of(tables)}
        return Plan.create(folder, "forward", settings, [Phase(PHASE, boxes)], files)


def open_tasks(plan: Plan) -> Predictions:
    """Open the network and the volumes of a plan."""
    job = Job(*parse(plan.settings["words"]))
    held = Folder(plan.folder).get(TABLES)
    volume, source = cloud_volume(job, None if held is None else np.load(io.BytesIO(held)))
    return Predictions(job, volume, placement(job, volume, source, job.covered(volume)), source)


def effort(plan: Plan) -> Effort:
    """Return what a plan costs."""
    return Effort(plan.phases[0].boxes.whole.voxels, plan.settings["patches"], plan.settings["uncut"])


def rate(plan: Plan, seconds: float = 5.0) -> float:
    """Measure the network's output voxels per second on this machine, in a trial of a few seconds."""
    job = Job(*parse(plan.settings["words"]))
    size = (job.options.speed.batch_size, job.channels, *job.fine_patch)
    patches = torch.zeros(size, device=job.device)
    float(next(iter(job.network(patches).values())).sum())  # warm up: the first call sets up what later calls reuse
    begun, count = time.monotonic(), 0
    while (taken := time.monotonic() - begun) < seconds:
        float(next(iter(job.network(patches).values())).sum())
        count += size[0]
    whole = effort(plan)
    return whole.voxels / whole.uncut * count / taken


class CheckedSink(CloudSink):
    """Output volumes that read each block back after writing it; `blocks` holds the checksums."""

    blocks: list[tuple[str, Vec3, Vec3, int]]

    def __enter__(self) -> CheckedSink:
        self.blocks = []
        return self

    def store(self, name: str, box: Box, array: Array) -> None:
        """Write whole chunks and read them back.

        Raises:
            OSError: the data read differ from the data written.
        """
        put(self.volumes[name], box, array)
        crc = _crc(array)
        if _crc(get(self.volumes[name], box)) != crc:
            raise OSError(f"{self.paths[name]}: voxels {box.begin} to {box.end} are not what was written")
        self.blocks.append((name, box.begin, box.end, crc))


@dataclass(frozen=True)
class Predictions:
    """Run the tasks of a plan; the network and the volumes stay open from task to task."""

    job: Job
    volume: Prepared
    place: Placement
    source: CloudSource

    def do(self, phase: str, box: Box, label: str) -> dict[str, Any]:
        """Predict a box and return the checksums of its blocks and its figures."""
        with self.place.sink(CheckedSink) as sink:
            assert isinstance(sink, CheckedSink)
            figures = self.job.run(self.volume, box, sink, sink.chunk, label)
        warn_of_absent(f"{label}: {self.source.name}", self.source.absent)
        self.source.absent.clear()  # each task reports only its own absent chunks
        return {"blocks": sink.blocks, "host": os.uname().nodename, **figures}

    def holds(self, phase: str, marker: Mapping[str, Any]) -> bool:
        """Read every block of a task and return whether its checksum matches the marker."""
        try:
            return all(
                _crc(get(self._volumes[name], Box(vec3(begin), vec3(end)))) == crc
                for name, begin, end, crc in marker["blocks"]
            )
        except InputError:  # an unreadable block counts as damaged
            return False

    @cached_property
    def _volumes(self) -> Mapping[str, Any]:
        return self.place.sink().volumes


def _crc(array: Array) -> int:
    crc = 0
    for channel in array:
        crc = zlib.crc32(np.ascontiguousarray(channel).data, crc)
    return crc


def _bytes_of(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
