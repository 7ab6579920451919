"""Run a trained detector over a volume, and write a label volume and a table of the objects found."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deepem.blocks.folder import Folder
from deepem.build.detector import Detector, mask_threshold
from deepem.io.faults import unwritable
from deepem.io.hdf5 import open_hdf5
from deepem.io.volume import Volume, VoxelSize
from deepem.scan.grid import resolve_stride
from deepem.scan.progress import Progress, tell
from deepem.tasks import Task
from deepem.test.found import write_table
from deepem.test.job import Job
from deepem.test.kinds import written
from deepem.test.objects import Objects, block_of
from deepem.utils.files import replacing
from deepem.utils.geometry import Box, Vec3, vec3

CHUNK: Vec3 = (16, 64, 64)
"""Chunk of the label volume, (z, y, x) voxels."""


def predict_objects(
    job: Job, row: Task, volume: Volume, path: Path, source: Path, voxel_size_nm: VoxelSize | None
) -> dict[str, Any]:
    """Find the objects of a volume, and write their label volume and, beside it, their table.

    Intermediate results are kept in a folder beside them. A killed run that is started again with the same options
    resumes from that folder and writes the same files.

    Raises:
        InputError: something cannot be read or written.
    """
    parts = path.with_name(f".{path.stem}.parts")
    folder = Folder(str(parts))
    objects = objects_of(job, volume, folder)
    _begin_anew_unless(folder, parts, _settings(job, volume, source, objects.overlap))
    detect = Detector(job.model, row.name, volume, job.device, job.options.speed.amp)
    done = [objects.is_found(number) for number in range(len(objects.grid))]
    if any(done):
        tell(f"{path.stem}: {sum(done)} of {len(done)} tiles are there already")
    whole = Box((0, 0, 0), volume.size)
    with Progress(len(objects.grid), whole.voxels, label=path.stem) as bar:
        for number, there in enumerate(done):
            if not there:
                objects.find(number, detect)
            bar.add(1)
    objects.merge()
    for number in range(len(objects.blocks)):
        if not objects.is_counted(number):
            objects.count(number)
    count = objects.number()
    files = write_files(objects, row, volume, path, source, voxel_size_nm)
    shutil.rmtree(parts, ignore_errors=True)
    tell(f"{path.stem}: {count} objects, wrote {', '.join(map(str, files))}")
    return {"objects": count, "tiles": len(objects.grid), "seconds": round(bar.seconds, 3)}


def objects_of(job: Job, volume: Volume, folder: Folder) -> Objects:
    """Return the steps from tiles to a label volume for the options of a job; `folder` takes their results."""
    patches = job.options.patches
    step = resolve_stride(job.patch, patches.overlap, patches.stride)
    overlap = vec3(p - s for p, s in zip(job.patch, step, strict=True))
    threshold = mask_threshold(job.model)
    return Objects(folder, volume.size, job.patch, overlap, block_of(volume.size), threshold)


def write_files(
    objects: Objects, row: Task, volume: Volume, path: Path, source: Path, voxel_size_nm: VoxelSize | None
) -> list[Path]:
    """Write the table, then the label volume, and return both paths; if the volume exists, both are complete.

    Raises:
        InputError: the files cannot be written, for example because the disk is full.
    """
    (one,) = written([row]).values()
    attributes = {**one.attributes(volume.origin, voxel_size_nm), "source": str(source)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = write_table(path.with_suffix(".csv"), objects.rows(volume.origin))
        with replacing(path) as beside, open_hdf5(beside, "w") as file:
            chunk = vec3(min(pair) for pair in zip(CHUNK, objects.size, strict=True))
            data = file.create_dataset("main", objects.size, objects.dtype, chunks=chunk, compression="gzip",
                                       compression_opts=1, shuffle=True)  # fmt: skip
            data.attrs.update(attributes)
            for number in range(len(objects.blocks)):
                box, labels = objects.labels(number)
                data[box.slices()] = labels
    except OSError as error:
        raise unwritable(path, error) from error
    return [path, *tables]


def _settings(job: Job, volume: Volume, source: Path, overlap: Vec3) -> dict[str, Any]:
    """Return everything that determines the objects found, as plain values."""
    weights = 0
    for name, value in job.model.state_dict().items():
        weights = zlib.crc32(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(),
                             zlib.crc32(name.encode(), weights))  # fmt: skip
    there = source.stat() if source.is_file() else None
    return json.loads(json.dumps({  # type: ignore[no-any-return]
        "weights": weights, "tile": job.patch, "overlap": overlap, "volume": volume.size,
        "input": [str(source), *([there.st_size, there.st_mtime_ns] if there else [])],
        "flags": {name: str(value) for name, value in sorted(job.options.plug_in_flags.items())},
        "amp": job.options.speed.amp, "pad_small": job.options.patches.pad_small, "device": job.device.type,
    }))  # fmt: skip


def _begin_anew_unless(folder: Folder, parts: Path, settings: Mapping[str, Any]) -> None:
    """Keep the results of an earlier run with the same settings; delete those of any other."""
    name = "settings.json"
    if folder.json(name) != settings:
        shutil.rmtree(parts, ignore_errors=True)
        folder.put(name, settings)
