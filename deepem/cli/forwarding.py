"""The options of inference: every flag of `deepem forward`, declared once."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepem.cli import network_options, plugins, words
from deepem.cli.flags import Group, flag
from deepem.cli.plugins import PlugIn
from deepem.cli.task_flags import TaskOptions, flat
from deepem.utils.files import run_folder
from deepem.utils.geometry import Vec3


def _resolution(word: str) -> Any:
    values = tuple(float(part) for part in word.split(","))
    if len(values) != 3 or not all(0 < value < math.inf for value in values):
        raise ValueError
    return values


resolution = words.value_of("three numbers x,y,z above 0", _resolution)


def _tags(word: str) -> dict[str, str]:
    try:
        found = json.loads(words.text(word))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'got {words.text(word)}, wants JSON such as {{"affinity": "aff"}}')
    return {str(name): str(tag) for name, tag in found.items()}


@dataclass(frozen=True)
class RunOptions(Group):
    """The trained network to load."""

    title = "the trained run"
    exp_name: str | None = flag(None, "folder under experiments/", metavar="NAME")
    chkpt_num: int = flag(0, "checkpoint to load; 0 loads the newest", read=words.natural, metavar="N")
    pretrain: bool = flag(False, "load the weights that match, and ignore the others")
    no_eval: bool = flag(False, "keep the network in train mode")


@dataclass(frozen=True)
class FileOptions(Group):
    """Volumes on disk."""

    title = "volumes on disk"
    data_dir: str = flag("", "folder of the volumes: reads DIR/ID/INPUT_NAME", metavar="DIR")
    test_ids: list[str] | None = flag(None, "volumes to predict", metavar="ID", many="+")
    data_names: list[str] | None = flag(None, "the same as --test_ids", metavar="ID", many="+")
    input_name: str = flag("img.h5", "HDF5, zarr, TIFF or numpy file", metavar="FILE")
    out_prefix: str = flag("", "prefix of the output's file name")
    out_tag: str = flag("", "suffix of the output's file name")
    out_dtype: Literal["float32", "uint8"] = flag("float32", "type of the output; uint8 stores probability * 255")


@dataclass(frozen=True)
class NetworkOptions(network_options.NetworkOptions):
    """The network and its sizes; by default those of the checkpoint."""

    title = "network (default: as trained)"


@dataclass(frozen=True)
class PatchOptions(Group):
    """Patches and blending."""

    title = "patches and blending"
    overlap: tuple[float, float, float] = flag(
        (0.5, 0.5, 0.5),
        "overlap of output patches in voxels, or below 1 as a fraction; default: 0 where that leaves no seam",
        metavar="Z,Y,X",
    )
    stride: tuple[float, float, float] | None = flag(None, "stride of patches, in place of --overlap", metavar="Z,Y,X")
    blend: str = flag("bump", "bump, mean, precomputed (as bump), or '' for none")
    bump: str = flag("zung", "zung, wu or wu_no_crust")
    mask_edges: list[Vec3] | None = flag(
        None, "give no weight to planes where these edges leave the patch; without a value, use the outputs' own",
        read=words.edge, metavar="Z,Y,X", many="*",
    )  # fmt: skip
    temperature: float | None = flag(None, "divide logits by max(T, 1)", read=words.positive, metavar="T")
    test_aug: list[int] | None = flag(
        None, "average over these of 16 flips; bits of K: z, y, x, transpose", read=words.natural, metavar="K", many="+"
    )
    variance: bool = flag(False, "also write the variance over --test_aug")
    force_crop: Vec3 | None = flag(None, "keep only the centre of each output patch", read=words.size, metavar="Z,Y,X")
    context: Literal["none", "mirror", "outside"] = flag(
        "none",
        "for a network whose output patch is smaller than its input: what it sees beyond the border. none: nothing, so "
        "the output is smaller; mirror: a reflection; outside: the volume outside --begin and --end, where it goes on",
    )
    mirror: Vec3 | None = flag(None, "pad the input by half of this on each side, by reflection", metavar="Z,Y,X")
    pad_small: bool = flag(False, "pad volumes smaller than a patch, by reflection")
    crop_border: Vec3 | None = flag(None, "crop half of this from each side of the output", metavar="Z,Y,X")
    crop_center: Vec3 | None = flag(
        None, "crop the output to this size at its centre", read=words.size, metavar="Z,Y,X"
    )


@dataclass(frozen=True)
class CloudOptions(Group):
    """Volumes behind cloud-volume."""

    title = "volumes behind cloud-volume (x,y,z)"
    gs_input: str = flag("", "file://, gs:// or s3://; each {} is filled with --keywords", metavar="PATH")
    gs_input_mask: str = flag("", "set the image to 0 wherever this volume is not 0", metavar="PATH")
    gs_input_norm: tuple[float, float] | None = flag(
        None, "stretch each section's grey values, clipping these shares of the darkest and brightest voxels",
        read=words.fraction, metavar="P", many=2,
    )  # fmt: skip
    in_mip: int = flag(0, "mip level to read", read=words.natural, metavar="N")
    cache: bool = flag(False, "cache downloaded chunks on disk")
    begin: Vec3 | None = flag(None, "first voxel, at mip 0", read=words.xyz, metavar="X,Y,Z", short="-b")
    end: Vec3 | None = flag(None, "end, at mip 0", read=words.xyz, metavar="X,Y,Z", short="-e")
    center: Vec3 | None = flag(None, "centre, at mip 0; with --size", read=words.xyz, metavar="X,Y,Z", short="-c")
    size: Vec3 | None = flag(None, "size, at mip 0", read=words.xyz, metavar="X,Y,Z", short="-s")
    gs_output: str = flag("", "folder of the output volumes", metavar="PATH")
    tags: dict[str, str] | None = flag(None, "output name -> folder name", read=_tags, metavar="JSON")
    keywords: list[str] = flag([], "words that replace each {} in the paths", metavar="WORD", many="*")
    parallel: int = flag(
        16, "has no effect: reading and writing always run in threads beside the network",
        read=words.counting, metavar="N", short="-p",
    )  # fmt: skip
    downsample: bool = flag(False, "add levels of lower resolution", short="-d")
    resolution: tuple[float, float, float] | None = flag(
        None, "nm per voxel (default: the input's)", read=resolution, metavar="X,Y,Z", short="-r"
    )
    offset: Vec3 | None = flag(
        None, "position of the input's first voxel in the output, at mip 0",
        read=words.xyz, metavar="X,Y,Z", short="-o",
    )  # fmt: skip
    chunk_size: Vec3 = flag((64, 64, 16), "chunks of new output volumes", read=words.xyz, metavar="X,Y,Z")


@dataclass(frozen=True)
class SpeedOptions(Group):
    """Speed and memory."""

    title = "device, speed and memory"
    gpu_id: int | None = flag(
        None, "CUDA device by number (default: the first, if any)", read=words.natural, metavar="GPU"
    )
    cpu: bool = flag(False, "run on the CPU")
    batch_size: int = flag(1, "patches per network call", read=words.counting, metavar="N")
    amp: bool = flag(False, "mixed precision (bfloat16); without it a GPU uses TF32")
    compile: bool = flag(False, "torch.compile the network: half a minute or more at the start, then faster patches")
    max_memory: int | None = flag(
        None, "use at most this much memory (default: half of the free memory)", read=words.counting, metavar="MIB"
    )
    acc_dtype: Literal["float32", "float16", "bfloat16"] = flag(
        "float32",
        "number type of the blending sums; float16 and bfloat16 mean float32 too, because sums in half precision would "
        "be off by up to 0.02",
    )
    skip_background: bool = flag(False, "skip patches whose input is all 0, and output 0 there")
    json: bool = flag(False, "print a summary at the end")


@dataclass(frozen=True)
class BatchOptions(Group):
    """Batches of cut-outs, and benchmarks."""

    title = "batches and benchmarks"
    spec: str | None = flag(None, "a batch of cut-outs: JSON list of flags and values", metavar="FILE")
    processes: int | None = flag(None, "processes for --spec (default: one per GPU)", read=words.counting, metavar="N")
    dummy: bool = flag(False, "a benchmark: predict noise, write nothing")
    dummy_inputsz: tuple[int, ...] = flag((128, 1024, 1024), "z y x", read=words.counting, metavar="N", many=3)


@dataclass(frozen=True)
class ForwardOptions:
    """All options of an inference run, immutable after parsing."""

    run: RunOptions
    files: FileOptions
    tasks: TaskOptions
    network: NetworkOptions
    patches: PatchOptions
    cloud: CloudOptions
    speed: SpeedOptions
    batch: BatchOptions
    plug_in_flags: Mapping[str, Any]
    typed: frozenset[str]

    @property
    def inputsz(self) -> Vec3:
        """The input patch."""
        assert self.network.inputsz is not None  # filled in by the parser
        return self.network.inputsz

    @property
    def models(self) -> Path:
        """The folder of the run's checkpoints."""
        return run_folder(str(self.run.exp_name)) / "models"

    @property
    def volumes(self) -> list[str]:
        """The ids of the volumes to predict."""
        return self.files.test_ids or self.files.data_names or []

    def model(self) -> PlugIn:
        """Load the model module with the values of its flags, and its backbone."""
        backbone = self.network.backbone
        made = plugins.named("backbone", backbone, self.plug_in_flags) if backbone else None
        model = plugins.named("model", str(self.network.model), self.plug_in_flags)
        return plugins.model_with_backbone(model, made)

    def flat(self) -> dict[str, Any]:
        """Return every option by the name of its flag."""
        return flat(self)
