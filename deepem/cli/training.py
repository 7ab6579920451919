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
"""Default number of samples for batch-norm statistics, if the weights are not averaged."""

SCHEDULES = ("constant", "step", "cosine", "poly")


def _scale(word: str) -> tuple[str, float]:
    """Parse a learning-rate factor for some parameters, ``core.enc=0.1``."""
    name, _, factor = words.text(word).strip().rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"got {word}, wants NAME=FACTOR such as core.enc=0.1")
    return name, float(words.non_negative(factor))


def _intensity(word: str) -> Any:
    """Parse ``none``, ``percentile``, or ``LOW,HIGH``, the grey values to map to 0 and 1."""
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
        1024, "memory for chunks that --lazy has read, over all workers together",
        read=words.natural, metavar="MB", resume=FREE,
    )  # fmt: skip
    sampler: str = flag("basic", "sampler module", metavar="MODULE")
    augment: str | None = flag(None, "augmentation recipe", metavar="MODULE")
    intensity: list[Any] = flag(
        ["none"], "for images that are not bytes, grey values to map to 0 and 1: LOW,HIGH (for each channel), "
        "percentile, or none", read=_intensity, metavar="LOW,HIGH", many="+", older=["none"],
    )  # fmt: skip
    percentiles: tuple[float, float] = flag((0.5, 99.5), "low and high percentile of --intensity percentile")
    percentiles_of: Literal["train", "volume"] = flag("train", "percentiles of all training voxels, or per volume")
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
    """Name, length and start of a run."""

    title = "run"
    exp_name: str | None = flag(None, "folder under experiments/ (default: <dataset>_<tasks>)", resume=FREE)
    max_iter: int = flag(1_000_000, "total number of optimiser steps", read=words.counting, metavar="N", resume=FREE)
    batch_size: int = flag(1, "samples per step, over all processes or GPUs together", read=words.counting, metavar="N")
    seed: int = flag(0, "seed of all samples and of the initial weights", read=words.natural)
    pretrain: str | None = flag(
        None, "start from the weights in this checkpoint that match the network", metavar="FILE", resume=FREE
    )
    test: bool = flag(False, "a short trial under test/experiments that logs more often", resume=FREE)


@dataclass(frozen=True)
class LossOptions(Group):
    """How losses are computed."""

    title = "loss"
    loss: Any = flag(
        "BCELoss", "BCELoss or MSELoss for affinities; for other tasks, write mit=MSELoss",
        read=words.per_task(words.one_of("BCELoss", "MSELoss")), metavar="[TASK=]NAME", many="+",
        gather=words.by_task,
    )  # fmt: skip
    size_average: bool = flag(False, "take the mean over voxels instead of the sum")
    margin0: Any = flag(
        0.0, "margin at target 0 for all tasks; for one task, write mit=0.1",
        read=words.per_task(words.fraction), metavar="[TASK=]M", many="+", gather=words.by_task,
    )  # fmt: skip
    margin1: Any = flag(
        0.0, "margin at target 1 for all tasks; for one task, write mit=0.1",
        read=words.per_task(words.fraction), metavar="[TASK=]M", many="+", gather=words.by_task,
    )  # fmt: skip
    inverse: bool = flag(False, "smooth the labels by the margins, instead of masking voxels within the margins")
    class_balancing: Any = flag(
        False, "balance cut and uncut edges of affinities; with task names, balance the two classes of these tasks",
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
        0.999, "decay of the moving average of the weights, which is evaluated and stored too; 0 turns it off",
        read=words.fraction, metavar="DECAY", resume=ASK, older=0.0,
    )  # fmt: skip
    calibrate: int | None = flag(
        None, "recompute batch-norm statistics over N training samples before evaluating or saving; 0 turns this "
        f"off (default: 0 with --ema, {CALIBRATE} without)",
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
        """Number of samples to recompute batch-norm statistics over; 0 for none."""
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
        None, "predict, segment and score this whole volume at intervals", metavar="ID", resume=FREE
    )
    eval_segment_intv: int = flag(
        10_000, "interval of --eval_segment, in steps", read=words.counting, metavar="N", resume=FREE
    )
    best_by: Literal["loss", "arand", "voi", "f1", "auc", "iou"] = flag(
        "loss", "best.chkpt follows the loss on --val_ids or this score on --eval_segment", resume=FREE
    )
    chkpt_intv: int = flag(10_000, "save a checkpoint every N steps", read=words.counting, metavar="N", resume=FREE)
    chkpt_num: int = flag(
        0, "resume from this checkpoint; 0 resumes from the newest", read=words.natural, metavar="N", resume=FREE
    )
    keep: int = flag(0, "keep the N newest checkpoints; 0 keeps all", read=words.natural, metavar="N", resume=FREE)
    keep_every: int = flag(
        0, "with --keep, also keep the checkpoints of every N-th step", read=words.natural, metavar="N", resume=FREE
    )
    skip_nan: int = flag(
        0, "skip up to N steps whose loss or gradient is not finite", read=words.natural, metavar="N", resume=FREE
    )
    change: list[str] | None = flag(
        None, "flags whose values may differ from those at the start of the run", metavar="FLAG", many="+", resume=FREE
    )

    def segments_after(self, iteration: int) -> bool:
        """Whether a volume is segmented and scored after an iteration."""
        return self.eval_segment is not None and iteration % self.eval_segment_intv == 0


@dataclass(frozen=True)
class SpeedOptions(Group):
    """Speed against exactness."""

    title = "speed"
    amp: Literal["auto", "bf16", "fp16", "off"] = flag(
        "auto", "mixed precision; auto uses bf16 where that is faster", resume=ROUNDING
    )
    channels_last: bool | None = flag(
        None, "use the channels-last memory format (default: yes, except in float32 on a CPU)",
        negatable=True, resume=ROUNDING,
    )  # fmt: skip
    compile: bool = flag(
        False, "compile the network with torch.compile: takes minutes at the start, then steps are faster on a GPU",
        negatable=True, resume=ROUNDING,
    )  # fmt: skip
    tf32: bool = flag(True, "use TF32 for float32 multiplication on a GPU", negatable=True, resume=ROUNDING)
    cudnn_benchmark: bool = flag(
        True, "let cuDNN time its algorithms and use the fastest", negatable=True, resume=ROUNDING
    )
    deterministic: bool = flag(False, "make runs on a GPU bit-identical; slower", resume=ROUNDING)
    sync_bn: bool = flag(False, "compute batch norm over all processes")
    num_workers: int = flag(1, "processes that load samples", read=words.natural, metavar="N", resume=FREE)
    worker_timeout: float = flag(
        60.0, "a worker that makes no progress for this many seconds counts as hung",
        read=words.seconds, metavar="S", resume=FREE,
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
        read=words.seconds, metavar="S", resume=FREE,
    )  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    """All options of a training run, immutable after parsing."""

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
    """The command line as a YAML file for --config."""

    @property
    def inputsz(self) -> Vec3:
        """The input patch."""
        return self.network.inputsz or DEFAULT_FOV

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return run_folder(str(self.run.exp_name), self.run.test)

    def plug_in(self, kind: str, word: str) -> PlugIn:
        """Load a plug-in that the options name, with the values of its flags."""
        return plugins.named(kind, word, self.plug_in_flags)

    def model(self) -> PlugIn:
        """Load the model module with the values of its flags, and its backbone."""
        backbone = self.network.backbone
        made = self.plug_in("backbone", backbone) if backbone else None
        return plugins.model_with_backbone(self.plug_in("model", self.network.model), made)

    def flat(self) -> dict[str, Any]:
        """Return every option by the name of its flag, as a checkpoint stores them."""
        return flat(self)
