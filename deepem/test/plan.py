"""A prediction cut into tasks that any number of workers on any machines share.

A plan is a folder (a path, ``file://``, ``gs://``, ...) with ``plan.json``: the command line of the prediction, what it
covers and the size of a task, whole chunks of the output volumes; nothing in it grows with the number of tasks. A task
computes every patch that touches its box, on the grid of the whole, so that its voxels are the same bits wherever the
cuts are. When its output is written and read back, its marker ``done/<thousands>/<number>.json`` is written, with a
checksum of every block: a task without a marker, or whose blocks are not those of its marker, is to be done again, and
nothing else is.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepem.io.addresses import refuse_unknown_protocol, to_be_made
from deepem.io.chunks import get, put
from deepem.io.cloud_sink import CloudSink
from deepem.io.faults import unwritable
from deepem.io.views import tables_of
from deepem.io.volume import Volume
from deepem.test.job import Job
from deepem.test.option import parse
from deepem.test.progress import tell
from deepem.test.volumes import Placement, cloud_volume, placement, stored
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles, Vec3, vec3

Array = NDArray[Any]

DOWNSAMPLE = (
    "no such flag in plan.py; once all tasks are done: python -c "
    "'from deepem.io.pyramid import downsample; downsample(\"PATH OF THE OUTPUT VOLUME\")'"
)
TRIES = 3
WAIT_S = 2.0


def url_of(folder: str) -> str:
    """A folder as cloud-files names it."""
    return folder if "://" in folder else f"file://{Path(folder).resolve()}"


@dataclass(frozen=True)
class Plan:
    """The tasks of a prediction.

    Attributes:
        folder: Where the plan lies.
        words: The command line of forward.py.
        boxes: Of the tasks, in voxels of the input as it is read.
        patches: Of all tasks, those that neighbours share counted for each.
        uncut: Patches of the whole in one piece.
    """

    folder: str
    words: tuple[str, ...]
    boxes: Tiles
    patches: int
    uncut: int

    @classmethod
    def make(cls, folder: str, words: Sequence[str], task_size: Vec3) -> Plan:
        """Cut what a command line predicts into tasks of about `task_size` (z, y, x), and make the output volumes.

        Raises:
            InputError: the command line cannot be used, or is none with --gs_input and --gs_output.
        """
        options, number, state = parse(words)
        if not options["gs_input"]:
            raise InputError("--gs_input", "nothing", "the volume behind cloud-volume that the tasks read")
        if options["downsample"]:  # of which task would it be?
            raise InputError("--downsample", "a plan", DOWNSAMPLE)
        if min(task_size) < 1:
            raise InputError("--task_size", ",".join(map(str, task_size[::-1])), "three sizes x,y,z of 1 or more")
        _refuse_folder(folder)
        words = [*words, "--chkpt_num", str(number)]  # workers are to agree on it while training goes on
        job = Job(options, number, state)
        norm = options["gs_input_norm"]
        tables = None if norm is None else tables_of(stored(options, "gs_input"), *norm)
        volume, source = cloud_volume(job, tables)
        covered = job.covered(volume)
        place = placement(job, volume, source, covered)
        with place.sink() as sink:
            boxes = Tiles(covered, vec3(max(1, round(n / c)) * c for n, c in zip(task_size, sink.chunk, strict=True)))
            patches = job.patches_tiled(volume, covered, boxes.tile)
            plan = cls(folder, tuple(words), boxes, patches, job.patches(volume, covered))
            if tables is not None:
                _put(folder, "tables.npy", _bytes_of(tables))
            _put(folder, "plan.json", {
                "words": plan.words,
                "covered": [covered.begin, covered.end],
                "task_size": boxes.tile,
                "patches": plan.patches,
                "uncut": plan.uncut,
            })  # fmt: skip
        return plan

    @classmethod
    def load(cls, folder: str) -> Plan:
        """The plan in a folder.

        Raises:
            InputError: there is none.
        """
        held = _json(folder, "plan.json")
        if held is None:
            raise InputError(folder, "no plan.json", "a folder made by plan.py")
        begin, end = map(vec3, held["covered"])
        boxes = Tiles(Box(begin, end), vec3(held["task_size"]))
        return cls(folder, tuple(held["words"]), boxes, held["patches"], held["uncut"])

    @property
    def voxels(self) -> int:
        """Output voxels in all."""
        return self.boxes.whole.voxels

    def left(self) -> Iterator[int]:
        """The tasks without a marker, one after the other."""
        done = self.done()
        return (number for number in range(len(self.boxes)) if number not in done)

    def done(self) -> set[int]:
        """The tasks that have a marker."""
        return _numbers(self.folder, "done/")

    def failed(self) -> dict[int, str]:
        """The tasks that could not be done at the last try, and why."""
        there = sorted(_numbers(self.folder, "failed/") - self.done())
        return {number: (_json(self.folder, _marker("failed", number)) or {}).get("error", "?") for number in there}

    def damaged(self) -> list[int]:
        """The tasks with a marker whose output is not what the marker says: every block is read and summed."""
        volumes = _worker(self.folder, os.getcwd()).place.sink().volumes
        return [number for number in sorted(self.done()) if not self._holds(number, volumes)]

    def _holds(self, number: int, volumes: Mapping[str, Any]) -> bool:
        marker = _json(self.folder, _marker("done", number))
        if marker is None:
            return False
        try:
            return all(
                _crc(get(volumes[name], Box(vec3(begin), vec3(end)))) == crc
                for name, begin, end, crc in marker["blocks"]
            )
        except InputError:  # what cannot be read is not what was written
            return False

    def rate(self, seconds: float = 5.0) -> float:
        """Output voxels per second of the network on this machine, from a trial of a few seconds."""
        job = _worker(self.folder, os.getcwd()).job
        size = (job.options["batch_size"], job.channels, *job.patch)
        patches = torch.zeros(size, device=job.device)
        float(next(iter(job.network(patches).values())).sum())  # the first call builds what later ones use
        begun, count = time.monotonic(), 0
        while (taken := time.monotonic() - begun) < seconds:
            float(next(iter(job.network(patches).values())).sum())
            count += size[0]
        return self.voxels / self.uncut * count / taken

    def forget(self, number: int) -> None:
        """Take a task's markers away, so that it is done again."""
        _files(self.folder).delete([_marker(kind, number) for kind in ("done", "failed")])

    def do(self, number: int) -> bool:
        """Do a task, unless it is done and its output holds; return whether it was done now.

        What cannot be read or written is tried again, a few times; then the reason is noted for `failed`.

        Raises:
            InputError: the plan's folder cannot take even that.
        """
        worker = _worker(self.folder, os.getcwd())
        if self._holds(number, worker.place.sink().volumes):
            return False
        for trial in itertools.count(1):
            try:
                marker = worker.do(self.boxes[number], f"task {number} of {len(self.boxes)}")
                _put(self.folder, _marker("done", number), marker)
            except (InputError, OSError) as error:
                line = f"task {number}: {error}"
                tell(line + ("; trying again" if trial < TRIES else ""))
                if trial < TRIES:
                    time.sleep(WAIT_S * (trial - 1))
                    continue
                _put(self.folder, _marker("failed", number), {"error": line})
                return False
            return True
        raise AssertionError


def do_task(folder: str, number: int) -> bool:
    """Do a task of the plan in a folder: what a queue holds."""
    return Plan.load(folder).do(number)


class CheckedSink(CloudSink):
    """Output volumes whose blocks are read back once they are written; `blocks` holds their checksums."""

    blocks: list[tuple[str, Vec3, Vec3, int]]

    def __enter__(self) -> CheckedSink:
        self.blocks = []
        return self

    def store(self, name: str, box: Box, array: Array) -> None:
        """Write whole chunks and read them back.

        Raises:
            OSError: what is read is not what was written.
        """
        put(self.volumes[name], box, array)
        crc = _crc(array)
        if _crc(get(self.volumes[name], box)) != crc:
            raise OSError(f"{self.paths[name]}: voxels {box.begin} to {box.end} are not what was written")
        self.blocks.append((name, box.begin, box.end, crc))


@dataclass(frozen=True)
class Worker:
    """What does the tasks of a plan: the network and the volumes, kept from task to task."""

    job: Job
    volume: Volume
    place: Placement

    def do(self, box: Box, label: str) -> dict[str, Any]:
        """Predict a box, and return what its marker holds."""
        with self.place.sink(CheckedSink) as sink:
            assert isinstance(sink, CheckedSink)
            figures = self.job.run(self.volume, box, sink, sink.chunk, label)
        return {"blocks": sink.blocks, "host": os.uname().nodename, **figures}


@functools.lru_cache(maxsize=1)
def _worker(folder: str, _where: str) -> Worker:
    plan = Plan.load(folder)
    job = Job(*parse(plan.words))
    volume, source = cloud_volume(job, _tables(folder))
    return Worker(job, volume, placement(job, volume, source, job.covered(volume)))


def _crc(array: Array) -> int:
    crc = 0
    for channel in array:
        crc = zlib.crc32(np.ascontiguousarray(channel).data, crc)
    return crc


def _tables(folder: str) -> NDArray[np.uint8] | None:
    held = _files(folder).get("tables.npy")
    return None if held is None else np.asarray(np.load(io.BytesIO(held)))


def _bytes_of(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _files(folder: str) -> Any:
    from cloudfiles import CloudFiles

    return CloudFiles(url_of(folder), progress=False)


def _refuse_folder(folder: str) -> None:
    """Refuse a folder that cannot take a plan, before anything is computed; it is left as it was."""
    refuse_unknown_protocol(folder, written=True)
    files, folders = _files(folder), to_be_made(url_of(folder))
    try:
        there = files.exists("plan.json")
        if not there:
            files.put("trial", b"")
            files.delete("trial")
    except Exception as error:  # each protocol raises errors of its own
        raise unwritable(folder, error) from error
    if there:
        raise InputError(folder, "a plan that is there", "a new folder")
    with suppress(OSError):
        for one in folders:
            one.rmdir()


def _put(folder: str, name: str, value: bytes | Mapping[str, Any]) -> None:
    files = _files(folder)
    try:
        files.put(name, value) if isinstance(value, bytes) else files.put_json(name, value)
    except Exception as error:  # each protocol raises errors of its own
        raise unwritable(f"{folder}/{name}", error) from error


def _json(folder: str, name: str) -> Any:
    """A JSON file of the plan, None if it is not there or not whole."""
    try:
        return _files(folder).get_json(name)
    except ValueError:
        return None


def _marker(kind: str, number: int) -> str:
    """The file that says that a task is done or failed: a thousand of them in a folder."""
    return f"{kind}/{number // 1000}/{number}.json"


def _numbers(folder: str, prefix: str) -> set[int]:
    names = (name.rsplit("/", 1)[-1] for name in _files(folder).list(prefix))
    return {int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit()}
