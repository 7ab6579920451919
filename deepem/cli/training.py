"""The options of training: every flag of `deepem train`, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepem.cli import network_options, plugins, words
from deepem.cli.data_options import DataOptions
from deepem.cli.flags import FREE, ROUNDING, Group, flag
from deepem.cli.network_options import DEFAULT_FOV
from deepem.cli.optimiser_options import OptimiserOptions, ScheduleOptions
from deepem.cli.plugins import PlugIn
from deepem.cli.task_flags import TaskOptions, flat
from deepem.utils.files import run_folder
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class NetworkOptions(network_options.NetworkOptions):
    """The network to train and its sizes."""

    model: str = flag("rsunet", "model module", metavar="MODULE")


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
        None,
        "predict, segment and score this whole volume at intervals",
        metavar="ID",
        resume=FREE,
    )
    eval_segment_intv: int = flag(
        10_000, "interval of --eval_segment, in steps", read=words.counting, metavar="N", resume=FREE
    )
    best_by: Literal["loss", "arand", "voi", "f1", "auc", "iou", "ap", "pq"] = flag(
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
