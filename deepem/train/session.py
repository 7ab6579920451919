"""Sets up a run from its options: builds all that training needs, resumes, and enters the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from deepem.build import network as networks
from deepem.build.device import choose_device, has_fast_bf16
from deepem.build.network import PatchSizes, create_network, patch_sizes, require_room_for_edges, specs
from deepem.build.samplers import Samplers, create_modifier, create_samplers
from deepem.build.scores import LOWER_IS_BETTER
from deepem.cli import resume
from deepem.cli.training import TrainOptions
from deepem.runs.folder import RunFolder, plain
from deepem.tasks import TASKS, Task, to_plain
from deepem.train import device as devices
from deepem.train import given, loop, weights
from deepem.train.assembly import create_trainer
from deepem.train.device import enough_memory
from deepem.train.evaluation import evaluate
from deepem.train.fitting import what_fits
from deepem.train.inputs import Inputs, Loading
from deepem.train.logger import Logger
from deepem.train.preempt import Preemption
from deepem.train.profiler import Profiler
from deepem.train.ranks import Ranks
from deepem.train.rescue import keeping_steps, living_workers
from deepem.train.trainer import Trainer
from deepem.train.trial import try_out
from deepem.train.whole_volume import WholeVolume, create_whole_volume, score_whole
from deepem.utils import checkpoint
from deepem.utils.allocator import keep_memory
from deepem.utils.checkpoint import State
from deepem.utils.convolution import quicken
from deepem.utils.errors import InputError, warn
from deepem.utils.exit_codes import STOPPED
from deepem.utils.provenance import provenance


@dataclass(frozen=True)
class Session:
    """A run in progress.

    Attributes:
        options: The options, with values adopted from the checkpoint when an older run resumes.
        trainer: The network and all that changes it.
        inputs: The batches.
        folder: The run on disk.
        notes: Lines to log when the run begins.
        changes: Differences from the options that the run was started with, one line each.
        averages: The sums of losses since the last row of the log, from the checkpoint.
        whole: The volume that is segmented and scored as a whole at intervals.
    """

    options: TrainOptions
    trainer: Trainer
    inputs: Inputs
    folder: RunFolder
    notes: Sequence[str]
    changes: Sequence[str]
    averages: Mapping[str, list[float]]
    whole: WholeVolume | None


def train(options: TrainOptions, preemption: Preemption) -> None:
    """Train until `max_iter`, resuming from the newest checkpoint of the run if there is one.

    Args:
        options: The options of the command line.
        preemption: Receives requests to stop. Its context has been entered.

    Raises:
        InputError: bad input. Nothing has been written by then.
        SystemExit: the run was asked to stop and saved.
    """
    keep_memory()
    session = prepare(options)
    trainer, inputs, folder, max_iter = session.trainer, session.inputs, session.folder, options.run.max_iter
    ranks, when = trainer.ranks, session.options.log
    with living_workers():
        inputs.start(trainer.iteration + 1, max_iter, lambda: preemption.requested, _look(session))

    def enough() -> AbstractContextManager[None]:
        step = options.inputsz, options.run.batch_size
        return enough_memory(*step, lambda: what_fits(trainer, *step))

    if inputs.first is not None:
        with enough():
            try_out(trainer, inputs.first)
    preemption.defer()
    if ranks.leads:
        size = sum(p.numel() * p.element_size() for p in trainer.network.parameters())
        # a checkpoint holds the weights, two Adam moments, perhaps the weight average, and a little more
        lines, settings = session.options.lines, options.settings
        folder.begin(trainer.iteration, trainer.record["options"], lines, 5 * size, settings)
        folder.remember(trainer.iteration, session.changes)
    with (
        enough(),
        Logger(folder.logs, trainer.iteration, max_iter, session.averages, ranks) as log,
        Profiler(options.speed.profile, folder.logs) as profiler,
    ):
        for line in (*session.notes, _plan(session, max_iter)):
            log.line(line)
        start = trainer.iteration
        with keeping_steps(lambda: loop.rescue(trainer, inputs, folder, log, when, start), preemption):
            if _lacks_evaluation(session):
                evaluate(trainer, inputs, log, preemption, when.eval_iter)
            if _lacks_scores(session):
                score_whole(trainer, inputs, log, session.whole)
            stopped = loop.train(trainer, inputs, folder, log, profiler, preemption, when, max_iter, session.whole)
    trainer.leave()
    folder.release()
    if stopped:
        raise SystemExit(STOPPED)


def prepare(options: TrainOptions) -> Session:
    """Build all that a run needs. This reads all input files and writes nothing."""
    ranks = Ranks(options.device.rank_timeout)
    by = options.log.best_by
    folder = RunFolder(options.folder, ranks.leads, by, LOWER_IS_BETTER.get(by, True))
    state = folder.resume(options.log.chkpt_num)
    if state is None and (there := checkpoint.numbers(folder.models)):
        raise InputError(folder.models, f"{len(there)} checkpoints, none readable", "one, or another --exp_name")
    before: Mapping[str, Any] | None = None if state is None else state.get("options")
    notes: list[str] = []
    changes: list[str] = []
    if before is not None:
        options, notes = resume.adopted(options, before, options.typed, [options.model().module])
    device = _device(options, ranks)
    options = _with_device_defaults(options, device)
    speed = options.speed
    devices.configure(device, tf32=speed.tf32, cudnn_benchmark=speed.cudnn_benchmark, deterministic=speed.deterministic)
    chosen = options.tasks.chosen
    model = options.model()
    sizes = patch_sizes(model, options.inputsz, options.network.outputsz)
    evaluated = networks.evaluated(model, sizes, eval_mode=not options.log.no_eval)
    require_room_for_edges(chosen, evaluated.output)
    require_divisible(options.run.batch_size, options.optimiser.accumulate, ranks.world)
    samplers = create_samplers(options, chosen, sizes)
    stored = samplers.grey_values.stored
    whole = create_whole_volume(options, chosen, evaluated, stored) if ranks.leads else None
    notes += samplers.grey_values.notes
    network = create_network(model, chosen, samplers.channels, sizes, seed=options.run.seed)
    network = _on_device(network, device, options)
    record = _record(options, chosen, sizes, samplers)
    if before is not None:
        for line in resume.require_same(
            folder.folder, TrainOptions, before, record["options"], options.log.change or ()
        ):
            warn(line)
            changes.append(line)
    elif state is not None:
        warn(f"{folder.models}: a checkpoint without options; resuming with those of the command line")
    trainer = create_trainer(options, chosen, network, device, ranks, record, sizes.factor)
    inputs = Inputs(samplers, _loading(options), create_modifier(options), ranks, device, tuple(record["spec"][0]))
    notes += _start_from(trainer, inputs, state, folder, options.run.pretrain)
    trainer.join()
    averages = (state or {}).get("averages", {}) if ranks.leads else {}
    return Session(options, trainer, inputs, folder, notes, changes, averages, whole)


def _look(session: Session) -> Callable[[str, Any], None]:
    """Return the function that validates the first batch from each plug-in."""
    inputs, outputs = session.trainer.record["spec"]
    data, run = session.options.data, session.options.run

    def look(kind: str, batch: Any) -> None:
        samples = run.batch_size // session.trainer.ranks.world if kind == "sampler" else None
        given.require_batch(batch, inputs, outputs, f"--{kind} {getattr(data, kind)}", samples)

    return look


def _device(options: TrainOptions, ranks: Ranks) -> torch.device:
    """Return the device of this process."""
    gpus = options.device.gpu_ids
    if gpus and ranks.local >= len(gpus):
        raise InputError("--gpu_ids", f"{len(gpus)} of them", "one for each process on this machine, or none named")
    gpu = gpus[ranks.local] if gpus else ranks.local if ranks.world > 1 and torch.cuda.is_available() else None
    return torch.device(choose_device(gpu, options.device.cpu))


def _with_device_defaults(options: TrainOptions, device: torch.device) -> TrainOptions:
    """Fill in the precision and memory format that suit the device best, where the options leave them open."""
    amp, last = options.speed.amp, options.speed.channels_last
    if amp == "auto":
        amp = "bf16" if has_fast_bf16(device.type) else "off"
    if last is None:
        # Not for float32 on a CPU: there torch sums batch-norm gradients less exactly (error 1e-2 instead of 1e-3).
        last = device.type == "cuda" or amp == "bf16"
    return replace(options, speed=replace(options.speed, amp=amp, channels_last=last))


def _on_device(network: nn.Module, device: torch.device, options: TrainOptions) -> nn.Module:
    if options.speed.deterministic:
        network = devices.made_deterministic(network)
    layout = torch.channels_last_3d if options.speed.channels_last else torch.preserve_format
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    quicken(network)
    return network


def _record(options: TrainOptions, chosen: Sequence[Task], sizes: PatchSizes, samplers: Samplers) -> dict[str, Any]:
    """Return what checkpoints store about the run, in plain types."""
    resolved = {
        "outputsz": sizes.output, "cropsz": sizes.crop, "train_ids": samplers.train_ids, "val_ids": samplers.val_ids,
    }  # fmt: skip
    spec = specs(chosen, samplers.channels, sizes)
    rows = [to_plain(task) for task in options.tasks.rows if task not in TASKS]
    return {
        "options": plain(options.flat() | resolved), "spec": spec, "channels": samplers.channels, "tasks": rows,
        "provenance": provenance(options.run.seed),
        "intensity": samplers.grey_values.stored,
    }  # fmt: skip


def _loading(options: TrainOptions) -> Loading:
    return Loading(options.run.seed, options.run.batch_size, options.speed.num_workers, options.speed.worker_timeout)


def _start_from(
    trainer: Trainer, inputs: Inputs, state: State | None, folder: RunFolder, pretrain: str | None
) -> list[str]:
    """Load the weights of the run's checkpoint or of --pretrain, if any. Returns lines to log."""
    notes = []
    if state is not None:
        trainer.restore(state, folder.source)
        inputs.restore(state)
    elif pretrain:
        notes.append(weights.pretrain(trainer.network, pretrain))
        trainer.used.restore({"state_dict": trainer.network.state_dict()})
    return notes


def _plan(session: Session, max_iter: int) -> str:
    """Return the line that is logged before the first step."""
    trainer, start = session.trainer, session.trainer.iteration
    how = f"{trainer.device} in {str(trainer.precision.dtype).removeprefix('torch.')}"
    what = f"iterations {start} to {max_iter} on {how}"
    if start >= max_iter:
        what = f"complete with iteration {start}; a larger --max_iter than {max_iter} goes on"
    return f"{session.folder.folder}: {what}"


def _lacks_evaluation(session: Session) -> bool:
    """Whether the run stopped before an evaluation that was due."""
    start, ranks = session.trainer.iteration, session.trainer.ranks
    due = start > 0 and start % session.options.log.eval_intv == 0
    return ranks.any(due and ranks.leads and not session.folder.evaluated(start), session.trainer.device)


def _lacks_scores(session: Session) -> bool:
    """Whether the run stopped before it scored the whole volume, although that was due."""
    start, ranks = session.trainer.iteration, session.trainer.ranks
    due = start > 0 and session.options.log.segments_after(start)
    return ranks.any(due and ranks.leads and not session.folder.evaluated(start, "segment"), session.trainer.device)


def require_divisible(batch_size: int, accumulate: int, world: int) -> None:
    """Refuse a batch size that cannot be divided equally among processes and shares."""
    if batch_size % (world * accumulate):
        factors = [f"{world} processes"] * (world > 1) + [f"--accumulate {accumulate}"] * (accumulate > 1)
        hint = f", such as --batch_size {-(-batch_size // (world * accumulate)) * world * accumulate}"
        wants = f"a multiple of {world * accumulate}: {' times '.join(factors)}{hint}"
        raise InputError("--batch_size", batch_size, wants)
