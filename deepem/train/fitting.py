"""Tells what fits on a GPU when a training step did not."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import torch

from deepem.train.trainer import Trainer
from deepem.utils.geometry import Vec3, vec3

UNIT = 16
"""Patch sides in y and x are suggested in steps of this many voxels."""
SHARE = 0.9
"""How much of the memory a suggestion may take; the rest is lost between allocations."""

Measure = Callable[[Vec3], int]
"""A patch -> the bytes that a step on one sample of it takes at most."""


def what_fits(trainer: Trainer, patch: Vec3, batch_size: int) -> str | None:
    """Try smaller steps on the GPU, and return the flags of the largest that should fit; None if that is unknown.

    The steps change gradients and batch-norm statistics, so the run must be about to end.

    Args:
        trainer: The trainer whose step did not fit.
        patch: The patch of that step.
        batch_size: Samples per step, over all ranks.
    """
    if trainer.device.type != "cuda" or trainer.objective.own:
        return None
    trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(trainer.device)
    allowed = total * torch.cuda.get_per_process_memory_fraction(trainer.device)
    room = min(free + torch.cuda.memory_reserved(trainer.device), allowed)
    share = batch_size // trainer.ranks.world
    try:
        return suggestion(lambda smaller: _peak(trainer, smaller), patch, share, trainer.settings.accumulate, room)
    except (RuntimeError, ValueError):  # the model does not take such patches, or they do not fit either
        return None


def _peak(trainer: Trainer, patch: Vec3) -> int:
    """Return the most bytes that are allocated during forward and backward of one sample."""
    torch.cuda.reset_peak_memory_stats(trainer.device)
    channels = next(iter(trainer.record["spec"][0].values()))[0]
    image = torch.zeros(1, channels, *patch, device=trainer.device)
    outputs = trainer.forward({"input": image}, trainer.network)
    torch.stack([logits.float().sum() for logits in outputs.logits.values()]).sum().backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated(trainer.device)


def suggestion(measure: Measure, patch: Vec3, samples: int, accumulate: int, room: float) -> str | None:
    """Return the flags of the largest step that should fit.

    Memory grows with the voxels of a patch and the samples of a share. Two small patches give the slope.

    Args:
        measure: See Measure.
        patch: The patch that did not fit.
        samples: Samples of one rank.
        accumulate: The number of shares that they were split into.
        room: The memory of the device in bytes.

    Returns:
        A larger --accumulate, or a smaller --fov with a batch of one sample per rank; None if not even the smallest
        patch should fit.
    """
    large, small = (_scaled(patch, factor) for factor in (1 / 2, 1 / 4))
    if large == small:
        return None
    at_large, at_small = measure(large), measure(small)
    per_voxel = (at_large - at_small) / (math.prod(large) - math.prod(small))
    if per_voxel <= 0:
        return None
    left = SHARE * room - (at_small - per_voxel * math.prod(small))
    fits = int(left / (per_voxel * math.prod(patch)))  # samples per share
    if fits >= 1:
        shares = [n for n in range(accumulate + 1, samples + 1) if samples % n == 0 and samples // n <= fits]
        return f"--accumulate {shares[0]}" if shares else None
    best = _scaled(patch, math.sqrt(max(left, 0) / (per_voxel * math.prod(patch))))
    needed = per_voxel * math.prod(best)
    more = f" --accumulate {samples}" if samples > 1 else ""
    return f"--fov {','.join(map(str, best))}{more}" if needed <= left else None


def _scaled(patch: Vec3, factor: float) -> Vec3:
    """Scale the sides of a patch in y and x, down to whole units."""
    z, y, x = patch
    return vec3((z, *(max(UNIT, int(n * factor) // UNIT * UNIT) for n in (y, x))))
