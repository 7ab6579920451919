"""Open the inputs that the command line names and place the outputs, in files or in cloud-volume volumes."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepem.cli.forwarding import ForwardOptions
from deepem.io.cloud_mask import CloudMask
from deepem.io.cloud_sink import CloudSink, Layout, fits
from deepem.io.files import opened_image
from deepem.io.precomputed import CloudSource
from deepem.io.pyramid import downsample
from deepem.io.sink import Hdf5Sink
from deepem.io.stored import Image, warn_of_absent
from deepem.io.volume import Volume, VoxelSize
from deepem.scan.augment import VARIANCE
from deepem.scan.progress import tell
from deepem.test.detect import predict_objects
from deepem.test.job import Job
from deepem.test.place import Place, filled
from deepem.test.prepared import Prepared, asked_of, prepared, with_context
from deepem.test.stream import Nowhere
from deepem.utils.errors import InputError, told_as
from deepem.utils.files import run_folder
from deepem.utils.geometry import Box, Vec3, vec3

Summary = dict[str, Any]


def predict_all(job: Job) -> list[Summary]:
    """Predict all volumes that the options name, and return figures about each."""
    options = job.options
    if options.batch.dummy:
        return [predict_dummy(job)]
    if options.cloud.gs_input_mask and not options.cloud.gs_input:
        raise InputError("--gs_input_mask", "no --gs_input", "both: volumes of --test_ids are read without a mask")
    if options.cloud.gs_input:
        return [predict_cloud(job)]
    refuse_shared(job)
    for name in options.volumes:  # report bad input before the first volume starts
        with file_volume(job, name) as volume:
            covered = job.covered(volume) if job.dense else None
            if options.cloud.gs_output and covered:
                file_placement(job, volume, covered, name).check()
    return [predict_file(job, name) for name in options.volumes]


def refuse_shared(job: Job) -> None:
    """Refuse ids with the same output location, since the last prediction would overwrite the others.

    Raises:
        InputError: two ids have the same output folder, or file.
    """
    options = job.options
    taken: dict[str, str] = {}
    for name in options.volumes:
        if options.cloud.gs_output:
            places = [filled(options.cloud.gs_output, options.cloud.keywords, name).rstrip("/")]
            wants = "--gs_output with a {} for the id, without --keywords"
        else:
            places = [str(path) for path in file_paths(options, job.files, job.number, name).values()]
            wants = "a run for each, with --out_prefix or --out_tag: in file names / is _"
        for place in places:
            if (other := taken.setdefault(place, name)) != name:
                raise InputError("--test_ids", f"{other} and {name}, both predicted into {place}", wants)


def predict_dummy(job: Job) -> Summary:
    """Predict noise and discard the result, as a benchmark."""
    size = vec3(job.options.batch.dummy_inputsz)
    noise = np.random.default_rng(0).integers(0, 256, (job.channels, *size), np.uint8)
    volume = prepared(job, Image("--dummy_inputsz", noise))
    return {"name": "dummy", **job.run(volume, job.covered(volume), Nowhere(), label="dummy")}


@contextmanager
def file_volume(job: Job, name: str) -> Iterator[Prepared]:
    """Open the volume of an id and prepare it as the options say."""
    path = Path(job.options.files.data_dir) / name / job.options.files.input_name
    with opened_image(path, as_stored=job.intensity is not None) as source:
        yield prepared(job, source)


def predict_file(job: Job, name: str) -> Summary:
    """Predict the volume of an id into files or, with --gs_output, into a cloud-volume volume."""
    options = job.options
    with file_volume(job, name) as volume:
        figures: Summary = {"name": name, "outputs": {}}
        if job.dense:
            figures |= _predict_dense(job, name, volume)
        source = Path(options.files.data_dir) / name / options.files.input_name
        for task in job.objects:
            path = file_paths(options, job.files, job.number, name)[task.name]
            figures[task.name] = predict_objects(
                job, task, volume, path, source, voxel_size_of(options, volume, job.sizes.factor)
            )
            figures["outputs"][task.name] = str(path)
    return figures


def _predict_dense(job: Job, name: str, volume: Prepared) -> Summary:
    """Predict the outputs of an id's volume that have a value at every voxel, and return the figures."""
    options = job.options
    covered = job.covered(volume)
    if options.cloud.gs_output:
        return dict(file_placement(job, volume, covered, name).predict(volume))
    paths = file_paths(options, job.outputs, job.number, name)
    begin = vec3(o + b for o, b in zip(volume.origin, covered.begin, strict=True))
    size = voxel_size_of(options, volume, job.sizes.factor)
    made = {"provenance": json.dumps(job.provenance)}
    attributes = {output: one.attributes(begin, size) | made for output, one in job.written.items()}
    job.cost(volume)  # tries the network, before anything is written
    with Hdf5Sink(paths, job.outputs, covered, job.dtypes, attributes) as sink:
        figures = job.run(volume, covered, sink, label=name)
    tell(f"{name}: wrote {', '.join(map(str, paths.values()))}")
    return {**figures, "outputs": {output: str(path) for output, path in paths.items()}}


def voxel_size_of(options: ForwardOptions, volume: Volume, factor: Vec3) -> VoxelSize | None:
    """Return the output's voxel size, (z, y, x) nm: that of the options or else of the input, over the factor."""
    if not options.cloud.resolution:
        return volume.voxel_size_nm
    z, y, x = (float(nm) / f for nm, f in zip(options.cloud.resolution[::-1], factor, strict=True))
    return z, y, x


def file_placement(job: Job, volume: Volume, covered: Box, name: str) -> Placement:
    """Return where the prediction of an id goes in cloud-volume volumes."""
    path = filled(job.options.cloud.gs_output, job.options.cloud.keywords, name)
    return Placement(job, volume, covered, (1, 1, 1), path)


def predict_cloud(job: Job) -> Summary:
    """Predict a box of a cloud-volume volume."""
    volume, source = cloud_volume(job)
    covered = job.covered(volume)
    figures = placement(job, volume, source, covered).predict(volume)
    warn_of_absent(source.name, source.absent)
    return {"name": source.name, **figures}


def cloud_volume(job: Job, tables: Any = None) -> tuple[Prepared, CloudSource]:
    """Return the input volume as prepared by the options, and as stored."""
    cloud = job.options.cloud
    source, path = stored(job.options, cloud.gs_input, job.intensity is not None), cloud.gs_input_mask
    read = with_context(job, source)
    mask = CloudMask(filled(path, cloud.keywords), read) if path else None
    return prepared(job, read, mask, tables, asked_of(source, read)), source


def stored(options: ForwardOptions, path: str, as_stored: bool = False) -> CloudSource:
    """Open the volume at a path, limited to the options' box; `as_stored` allows grey values of any type."""
    path = filled(path, options.cloud.keywords)
    with told_as({"mip": "--in_mip"}):
        source = CloudSource(path, options.cloud.in_mip, options.cloud.cache, as_stored)
    return place_of(options).within(source)


def placement(job: Job, volume: Volume, source: CloudSource, covered: Box) -> Placement:
    """Return where the prediction of a cloud-volume volume goes."""
    options = job.options
    if not options.cloud.gs_output:
        raise InputError("--gs_output", "nothing", "where the prediction of --gs_input goes")
    path = filled(options.cloud.gs_output, options.cloud.keywords, place_of(options).in_words())
    return Placement(job, volume, covered, source.ratio, path, source.origin)


def place_of(options: ForwardOptions) -> Place:
    """Return the box of the input that the options name."""
    return Place(options.cloud.begin, options.cloud.end, options.cloud.center, options.cloud.size)


def file_paths(options: ForwardOptions, outputs: Mapping[str, int], number: int, name: str) -> dict[str, Path]:
    """Return the file of each output: experiments/<exp>/forward/[<prefix>_]<id>_<output>_<N>[_<tag>].h5."""
    prefix = f"{options.files.out_prefix}_" if options.files.out_prefix else ""
    tag = f"_{options.files.out_tag}" if options.files.out_tag else ""
    where = run_folder(str(options.run.exp_name)) / "forward"
    return {output: where / f"{prefix}{name.replace('/', '_')}_{output}_{number}{tag}.h5" for output in outputs}


@dataclass
class Placement:
    """The position of a prediction in its output volumes.

    Attributes:
        job: The network.
        volume: The prepared input.
        covered: The box to predict, in voxels of the output.
        ratio: Voxels of mip 0 per voxel of the input, (z, y, x).
        path: The folder that holds one volume per output.
        stored: Position of the first voxel of the stored input, before padding.
    """

    job: Job
    volume: Volume
    covered: Box
    ratio: Vec3
    path: str
    stored: Vec3 = (0, 0, 0)

    @property
    def paths(self) -> dict[str, str]:
        """The path of each output: the folder, and in it the output's tag or else its name.

        Raises:
            InputError: a tag belongs to no output, is no valid folder name, or names the folder of another output.
        """
        tags = self.job.options.cloud.tags or {}
        known = [name for name in self.job.outputs if not name.endswith(VARIANCE)]
        if unknown := sorted(set(tags) - set(known)):
            raise InputError("--tags", unknown[0], f"names of outputs: {', '.join(known)}")
        taken: dict[str, str] = {}
        for name in self.job.outputs:
            tag = tags.get(name.removesuffix(VARIANCE), name.removesuffix(VARIANCE))
            inside = posixpath.normpath(tag)
            if inside.split("/")[0] in ("", ".", ".."):
                raise InputError("--tags", f"'{tag}' for {name}", "the name of a folder in --gs_output")
            inside += VARIANCE if name.endswith(VARIANCE) else ""
            if (other := taken.setdefault(inside, name)) != name:
                raise InputError("--tags", f"the folder {inside} for {other} and for {name}", "one for each output")
        return {name: f"{self.path.rstrip('/')}/{inside}" for inside, name in taken.items()}

    @property
    def origin(self) -> Vec3:
        """Position of the input's voxel 0 in the output volumes; --offset sets that of the stored input's voxel 0."""
        offset = self.job.options.cloud.offset
        if offset is None:
            return self.volume.origin
        moved = zip(
            tuple(offset)[::-1], self.ratio, self.volume.origin, self.stored, self.job.sizes.factor, strict=True
        )
        return vec3(o * f // r + padded - stored * f for o, r, padded, stored, f in moved)

    @property
    def bounds(self) -> Box:
        """The predicted box, in voxels of the output volumes."""
        return self.covered.shift(self.origin)

    @property
    def layout(self) -> Layout:
        """Layout of new output volumes."""
        options = self.job.options
        voxel_size = voxel_size_of(options, self.volume, self.job.sizes.factor) or (40.0, 4.0, 4.0)
        return Layout(self.bounds, voxel_size, vec3(tuple(options.cloud.chunk_size)[::-1]), options.files.out_dtype)

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """Attributes for the info file of each output, beside its layout."""
        return {name: one.attributes() for name, one in self.job.written.items()}

    def check(self) -> None:
        """Refuse outputs that do not match volumes that already exist."""
        for name, path in self.paths.items():
            layout = self.layout.of_classes() if name in self.job.classes else self.layout
            fits(path, self.job.outputs[name], layout, self.attributes[name])

    def sink(self, kind: type[CloudSink] = CloudSink) -> CloudSink:
        """Open the output volumes, and create those that do not exist yet."""
        options = self.job.options
        provenance = {
            "method": "deepem forward",
            "input": self.volume.name,
            "experiment": str(options.run.exp_name),
            **self.job.provenance,
            "checkpoint": self.job.number,
            "checkpoint_file": self.job.provenance["checkpoint"],
            "options": {name: value if isinstance(value, (int, float, str, bool)) else str(value)
                        for name, value in sorted(options.flat().items()) if value not in (None, False, "", [])},
        }  # fmt: skip
        return kind(
            self.paths, self.job.outputs, self.layout, self.origin, provenance, self.attributes, self.job.classes
        )

    def predict(self, volume: Volume, label: str = "forward") -> Summary:
        """Predict the covered box and return the figures."""
        self.job.cost(volume)  # tries the network, before anything is written
        with ExitStack() as stack:
            sink = stack.enter_context(self.sink())
            figures = self.job.run(volume, self.covered, sink, sink.chunk, label)
        if self.job.options.cloud.downsample:
            for path in self.paths.values():
                downsample(path)
        tell(f"{label}: wrote {', '.join(self.paths.values())}")
        return {**figures, "outputs": self.paths}
