"""Builds the trainer from the options: objective, optimiser, schedule, precision, evaluation weights, NaN guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from deepem.cli.training import TrainOptions
from deepem.tasks import Task
from deepem.train import weights
from deepem.train.device import Precision
from deepem.train.guard import Guard
from deepem.train.objective import Objective, auxiliary_of, has_losses
from deepem.train.optimiser import optimizer
from deepem.train.ranks import Ranks
from deepem.train.schedule import Schedule
from deepem.train.trainer import Settings, Trainer
from deepem.train.used import UsedWeights
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3


def create_trainer(
    options: TrainOptions,
    chosen: Sequence[Task],
    network: nn.Module,
    device: torch.device,
    ranks: Ranks,
    record: Mapping[str, Any],
    factor: Vec3,
) -> Trainer:
    """Build the trainer of a run.

    Args:
        options: The options of the run.
        chosen: The tasks to train.
        network: The network, already on the device.
        device: The device to compute on.
        ranks: The processes that train together.
        record: What checkpoints store about the run.
        factor: Voxels of the outputs per voxel of the input, (z, y, x).

    Raises:
        InputError: the options do not suit this network.
    """
    optimise, own = options.optimiser, has_losses(network)
    if own and options.loss.size_average and optimise.accumulate > 1:
        raise InputError("--accumulate", optimise.accumulate, "1: --model counts its losses itself, part by part")
    frozen = weights.freeze(network, optimise.freeze or ())
    objective = Objective(chosen, options.tasks.weights, vars(options.loss), auxiliary_of(network), own)
    if objective.left_to_network and not own:
        row = objective.left_to_network[0]
        wants = "a model that computes its losses itself, such as mask_rcnn"
        raise InputError(f"--{row.flag}", f"--model {options.network.model}", wants)
    groups = weights.groups(network, optimise.lr_scale or (), optimise.weight_decay, optimise.layer_decay)
    average = weights.Average(network, optimise.ema) if optimise.ema else None
    settings = _fields(optimise, "lr", "betas", "eps", "amsgrad", "momentum")
    return Trainer(
        network=network,
        objective=objective,
        optimizer=optimizer(optimise.optim, groups, **settings),
        schedule=schedule(options),
        precision=Precision(device, options.speed.amp),
        used=UsedWeights(network, average, optimise.calibration_samples, frozen),
        guard=Guard(network, options.log.skip_nan, options.folder / "nan", ranks),
        ranks=ranks,
        tasks=chosen,
        settings=Settings(
            seed=options.run.seed,
            lr=optimise.lr,
            clip=optimise.clip,
            accumulate=optimise.accumulate,
            channels_last=bool(options.speed.channels_last),
            eval_mode=not options.log.no_eval,
            compiled=options.speed.compile,
            sync_bn=options.speed.sync_bn,
            factor=factor,
        ),
        record=record,
        frozen_norms=frozen,
    )


def schedule(options: TrainOptions) -> Schedule:
    """Return the learning-rate schedule: a function of the iteration."""
    course = options.schedule
    until = course.lr_until or options.run.max_iter
    steps = tuple(course.lr_steps or ())
    return Schedule(course.lr_schedule, course.lr_warmup, until, steps, course.lr_gamma, course.lr_power)


def _fields(group: object, *names: str) -> dict[str, Any]:
    return {name: getattr(group, name) for name in names}
