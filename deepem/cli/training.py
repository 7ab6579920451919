"""The options of training: every flag of `deepem train`, declared once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepem.cli import plugins, words
from deepem.cli.flags import ASK, FREE, ROUNDING, Group, flag
from deepem.cli.plugins import PlugIn
from deepem.cli.task_flags import TaskOptions, flat
from deepem.utils.files import run_folder
from deepem.utils.geometry import Vec3

DEFAULT_FOV: Vec3 = (20, 256, 256)

CALIBRATE = 40
"""Samples that batch-norm statistics are taken over where the weights are not averaged."""

SCHEDULES = ("constant", "step", "cosine", "poly")


def _scale(word: str) -> tuple[str, float]:
    """Read a factor for some parameters, ``core.enc=0.1``."""
    name, _, factor = words.text(word).strip().rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"got {word}, wants NAME=FACTOR such as core.enc=0.1")
    return name, float(words.non_negative(factor))


def _intensity(word: str) -> Any:
    """Read ``none``, ``percentile``, or the grey values ``LOW,HIGH`` that become 0 and 1."""
    given = words.text(word).strip()
    if given in ("none", "percentile"):
        return given
    try:
        low, high = (words.number(part) for part in given.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        low = high = 0.0
    if not low < high:
        raise argparse.ArgumentTypeError(f"got {given}, wants LOW,HIGH with LOW < HIGH, percentile, or none")
    return low, high


@dataclass(frozen=True)
class DataOptions(Group):
    """Where samples come from."""

    title = "data (MODULE: a short name, a dotted path or a file)"
    data: list[str] | None = flag(None, "dataset modules", metavar="MODULE", many="+")
    data_dir: str = flag("data", "folder of the datasets", metavar="DIR", resume=FREE)
    train_ids: list[str] | None = flag(None, "volumes to train on, ID or MODULE/ID", metavar="ID", many="+")
    val_ids: list[str] | None = flag(None, "volumes to evaluate on", metavar="ID", many="+", resume=FREE)
    train_prob: list[float] | None = flag(
        None, "sampling weight of each of --train_ids", read=words.positive, metavar="P", many="+", resume=ASK
    )
    val_prob: list[float] | None = flag(
        None, "sampling weight of each of --val_ids", read=words.positive, metavar="P", many="+", resume=FREE
    )
    lazy: bool = flag(False, "read volumes from disk as samples are drawn, for those larger than memory", resume=FREE)
    cache_mb: int = flag(
        1024, "memory for chunks of volumes that are read from disk, of all workers together",
        read=words.natural, metavar="MB", resume=FREE,
    )  # fmt: skip
    sampler: str = flag("basic", "sampler module", metavar="MODULE")
    augment: str | None = flag(None, "augmentation recipe", metavar="MODULE")
    intensity: list[Any] = flag(
        ["none"], "grey values that become 0 and 1, for images that are not bytes: LOW,HIGH (of each channel), "
        "percentile, or none", read=_intensity, metavar="LOW,HIGH", many="+", older=["none"],
    )  # fmt: skip
    percentiles: tuple[float, float] = flag((0.5, 99.5), "those of --intensity percentile, in per cent")
    percentiles_of: Literal["train", "volume"] = flag("train", "of all voxels to train on, or of each volume")
    modifier: str | None = flag(None, "module that changes batches on the device, in training only", metavar="MODULE")


@dataclass(frozen=True)
class NetworkOptions(Group):
    """The network and its sizes."""

    title = "network"
    model: str = flag("rsunet", "model module", metavar="MODULE")
    backbone: str | None = flag(None, "backbone module, for models that take one", metavar="MODULE")
    fov: Vec3 | None = flag(
        None, "field of view of the network (default: 20,256,256)", read=words.size, metavar="Z,Y,X"
    )
    inputsz: Vec3 | None = flag(None, "input patch (default: --fov)", read=words.size, metavar="Z,Y,X")
    outputsz: Vec3 | None = flag(None, "output patch (default: what the model gives)", read=words.size, metavar="Z,Y,X")


@dataclass(frozen=True)
class RunOptions(Group):
    """Names and lengths."""

    title = "run"
    exp_name: str | None = flag(None, "folder under experiments/ (default: <dataset>_<tasks>)", resume=FREE)
    max_iter: int = flag(1_000_000, "optimiser steps in all", read=words.counting, metavar="N", resume=FREE)
    batch_size: int = flag(1, "samples per step, over all processes or GPUs together", read=words.counting, metavar="N")
    seed: int = flag(0, "decides every sample and the initial weights", read=words.natural)
    pretrain: str | None = flag(
        None, "start from those weights of this checkpoint that match", metavar="FILE", resume=FREE
    )
    test: bool = flag(False, "a short trial under test/experiments that logs more often", resume=FREE)


@dataclass(frozen=True)
class LossOptions(Group):
    """How losses are computed."""

    title = "loss"
    loss: Any = flag(
        "BCELoss", "criterion of affinities, BCELoss or MSELoss; of other tasks: mit=MSELoss",
        read=words.per_task(words.one_of("BCELoss", "MSELoss")), metavar="[TASK=]NAME", many="+",
        gather=words.by_task,
    )  # fmt: skip
    size_average: bool = flag(False, "take the mean over voxels instead of the sum")
    margin0: Any = flag(
        0.0, "margin of target 0, of all tasks or mit=0.1",
        read=words.per_task(words.fraction), metavar="[TASK=]M", many="+", gather=words.by_task,
    )  # fmt: skip
    margin1: Any = flag(
        0.0, "margin of target 1, of all tasks or mit=0.1",
        read=words.per_task(words.fraction), metavar="[TASK=]M", many="+", gather=words.by_task,
    )  # fmt: skip
    inverse: bool = flag(False, "use margins to smooth the labels instead of masking what lies within them")
    class_balancing: Any = flag(
        False, "balance cut and uncut edges of affinities; with names, the two classes of these tasks",
        read=words.task_on, metavar="TASK", many="*", gather=words.by_task_or_on,
    )  # fmt: skip
    default_aux: bool = flag(False, "use no margins for tasks other than affinities")


@dataclass(frozen=True)
class OptimiserOptions(Group):
    """How weights change."""

    title = "optimiser"
    optim: str = flag("Adam", "Adam, AdamW, SGD, or any other optimiser of torch.optim", metavar="NAME")
    lr: float = flag(0.001, "learning rate", read=words.positive, resume=ASK)
    betas: tuple[float, ...] = flag((0.9, 0.999), "betas of Adam", read=words.fraction, metavar="B", many=2)
    eps: float = flag(1e-8, "epsilon of Adam", read=words.positive)
    amsgrad: bool = flag(False, "use the AMSGrad variant of Adam")
    momentum: float = flag(0.9, "momentum of SGD", read=words.non_negative)
    weight_decay: float = flag(0.0, "weight decay of kernels; biases never decay", read=words.non_negative)
    clip: float = flag(
        0.0, "clip the gradient norm to this; 0 turns clipping off", read=words.non_negative, metavar="NORM"
    )
    accumulate: int = flag(
        1, "compute each batch in N parts and add up their gradients, to save memory", read=words.counting, metavar="N"
    )
    ema: float = flag(
        0.999, "evaluate and store the moving average of the weights too, with this decay; 0 turns it off",
        read=words.fraction, metavar="DECAY", resume=ASK, older=0.0,
    )  # fmt: skip
    calibrate: int | None = flag(
        None, "take the batch-norm statistics of the weights that are used over N training samples; 0: as they come "
        f"(default: 0 with --ema, {CALIBRATE} without)",
        read=words.natural, metavar="N", resume=FREE, older=0,
    )  # fmt: skip
    freeze: list[str] | None = flag(
        None, "keep these parameters fixed: core.enc, or *.bias", metavar="NAME", many="+", resume=ASK
    )
    lr_scale: list[tuple[str, float]] | None = flag(
        None, "multiply the learning rate of some parameters", read=_scale, metavar="NAME=X", many="+", resume=ASK
    )
    layer_decay: float = flag(
        1.0, "multiply the learning rate by this from each layer of a backbone to the one below it",
        read=words.positive, metavar="X", resume=ASK,
    )  # fmt: skip

    @property
    def calibration_samples(self) -> int:
        """How many samples batch-norm statistics are taken over; 0 for none."""
        return (0 if self.ema else CALIBRATE) if self.calibrate is None else self.calibrate


@dataclass(frozen=True)
class ScheduleOptions(Group):
    """The learning rate over the iterations."""

    title = "learning rate schedule"
    lr_warmup: int = flag(0, "raise the rate linearly over N steps", read=words.natural, metavar="N", resume=ASK)
    lr_schedule: str = flag("constant", ", ".join(SCHEDULES), read=words.one_of(*SCHEDULES), resume=ASK)
    lr_until: int | None = flag(
        None, "last step of cosine and poly (default: --max_iter)", read=words.counting, metavar="N", resume=ASK
    )
    lr_steps: list[int] | None = flag(
        None, "steps at which the step schedule lowers the rate", read=words.counting, metavar="N", many="+", resume=ASK
    )
    lr_gamma: float = flag(0.1, "factor at each of --lr_steps", read=words.positive, metavar="X", resume=ASK)
    lr_power: float = flag(0.9, "exponent of poly", read=words.positive, metavar="X", resume=ASK)


@dataclass(frozen=True)
class LogOptions(Group):
    """What a run writes, and when."""

    title = "logs, evaluation and checkpoints"
    avgs_intv: int = flag(100, "log averages every N steps", read=words.counting, metavar="N", resume=FREE)
    imgs_intv: int = flag(1000, "log pictures every N steps", read=words.counting, metavar="N", resume=FREE)
    warm_up: int = flag(100, "log each of the first N steps", read=words.natural, metavar="N", resume=FREE)
    eval_intv: int = flag(1000, "evaluate every N steps", read=words.counting, metavar="N", resume=FREE)
    eval_iter: int = flag(100, "samples per evaluation", read=words.counting, metavar="N", resume=FREE)
    no_eval: bool = flag(False, "evaluate in train mode", resume=FREE)
    eval_segment: str | None = flag(
        None, "predict, segment and score the whole of this volume now and then", metavar="ID", resume=FREE
    )
    eval_segment_intv: int = flag(10_000, "do that every N steps", read=words.counting, metavar="N", resume=FREE)
    best_by: Literal["loss", "arand", "voi", "f1", "auc", "iou"] = flag(
        "loss", "best.chkpt follows the loss on --val_ids, or this score of --eval_segment", resume=FREE
    )
    chkpt_intv: int = flag(10_000, "save a checkpoint every N steps", read=words.counting, metavar="N", resume=FREE)
    chkpt_num: int = flag(
        0, "resume from this checkpoint; 0: from the newest", read=words.natural, metavar="N", resume=FREE
    )
    keep: int = flag(0, "keep the N newest checkpoints; 0 keeps all", read=words.natural, metavar="N", resume=FREE)
    keep_every: int = flag(
        0, "with --keep, also keep the checkpoints of every N-th step", read=words.natural, metavar="N", resume=FREE
    )
    skip_nan: int = flag(
        0, "skip up to N steps whose loss or gradient is not finite", read=words.natural, metavar="N", resume=FREE
    )
    change: list[str] | None = flag(
        None, "flags that may differ from those that the run was started with", metavar="FLAG", many="+", resume=FREE
    )

    def segments_after(self, iteration: int) -> bool:
        """Whether the whole of a volume is to be scored after an iteration."""
        return self.eval_segment is not None and iteration % self.eval_segment_intv == 0


@dataclass(frozen=True)
class SpeedOptions(Group):
    """Speed against exactness."""

    title = "speed"
    amp: Literal["auto", "bf16", "fp16", "off"] = flag(
        "auto", "mixed precision; auto: bf16 where it is faster", resume=ROUNDING
    )
    channels_last: bool | None = flag(
        None, "store the channels of a voxel side by side (default: not in float32 on a CPU)",
        negatable=True, resume=ROUNDING,
    )  # fmt: skip
    compile: bool = flag(
        False, "torch.compile the network: minutes at the start, then faster steps on a GPU",
        negatable=True, resume=ROUNDING,
    )  # fmt: skip
    tf32: bool = flag(True, "multiply float32 numbers in TF32 on a GPU", negatable=True, resume=ROUNDING)
    cudnn_benchmark: bool = flag(
        True, "let cuDNN time its algorithms and take the fastest", negatable=True, resume=ROUNDING
    )
    deterministic: bool = flag(False, "give the same bits in every run on a GPU too; slower", resume=ROUNDING)
    sync_bn: bool = flag(False, "compute batch norm over all processes")
    num_workers: int = flag(1, "processes that load samples", read=words.natural, metavar="N", resume=FREE)
    worker_timeout: float = flag(
        60.0, "a worker that makes no progress for this many seconds counts as hung",
        read=words.positive, metavar="S", resume=FREE,
    )  # fmt: skip
    profile: int = flag(0, "trace N steps into logs/trace.json", read=words.natural, metavar="N", resume=FREE)


@dataclass(frozen=True)
class DeviceOptions(Group):
    """Where a run computes."""

    title = "device, and several processes (also under torchrun)"
    gpu_ids: list[int] | None = flag(
        None, "CUDA devices by number, one process each (default: the first, if any)",
        read=words.natural, metavar="GPU", many="+", resume=FREE,
    )  # fmt: skip
    cpu: bool = flag(False, "run on the CPU", resume=FREE)
    ray: int = flag(0, "train in N processes of a Ray cluster", read=words.natural, metavar="N", resume=FREE)
    rank_timeout: float = flag(
        600.0, "a process that does not answer for this many seconds counts as lost",
        read=words.positive, metavar="S", resume=FREE,
    )  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    """All options of a training run. Nothing writes into them after parsing."""

    data: DataOptions
    tasks: TaskOptions
    network: NetworkOptions
    run: RunOptions
    loss: LossOptions
    optimiser: OptimiserOptions
    schedule: ScheduleOptions
    log: LogOptions
    speed: SpeedOptions
    device: DeviceOptions
    plug_in_flags: Mapping[str, Any]
    typed: frozenset[str]
    lines: tuple[str, ...]
    """The command line as lines of an @file."""
    settings: str = ""
    """The same as a YAML file for --config."""

    @property
    def inputsz(self) -> Vec3:
        """The input patch."""
        return self.network.inputsz or DEFAULT_FOV

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return run_folder(str(self.run.exp_name), self.run.test)

    def plug_in(self, kind: str, word: str) -> PlugIn:
        """A plug-in that the options name, with the values of its flags."""
        return plugins.named(kind, word, self.plug_in_flags)

    def model(self) -> PlugIn:
        """The model module with the values of its flags, and its backbone."""
        backbone = self.network.backbone
        made = self.plug_in("backbone", backbone) if backbone else None
        return plugins.model_with_backbone(self.plug_in("model", self.network.model), made)

    def flat(self) -> dict[str, Any]:
        """Every option by its flag's name, as a checkpoint stores them."""
        return flat(self)
