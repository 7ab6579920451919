"""Evaluation between training steps: losses on the evaluation set, and batch-norm statistics for the weights used."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from torch import Tensor

from deepem.train import render
from deepem.train.inputs import Batch, Inputs
from deepem.train.logger import Averages, Logger
from deepem.train.preempt import Preemption
from deepem.train.trainer import Trainer


def calibrate(trainer: Trainer, inputs: Inputs, log: Logger) -> None:
    """Recompute batch-norm statistics for the evaluated weights, if the options ask for it, and log the cost."""
    if not trainer.used.to_calibrate:
        return
    began, size = perf_counter(), inputs.loading.batch_size
    samples = -(-trainer.used.samples // size) * size
    trainer.calibrate(inputs.calibration(samples))
    seconds = perf_counter() - began
    log.pause(seconds)
    log.line(f"batch-norm statistics taken over {samples} training samples  ({seconds:.1f} s)")


def samples_of_last(inputs: Inputs, samples: int) -> int:
    """Return the index of this rank's first sample in the last batch of an evaluation, for the log's pictures."""
    size = inputs.loading.batch_size
    return (-(-samples // size) - 1) * size + inputs.ranks.rank


def evaluate(trainer: Trainer, inputs: Inputs, log: Logger, preemption: Preemption, samples: int) -> bool:
    """Log the losses on the evaluation set, if there is one; every evaluation uses the same samples.

    The training state does not change.

    Returns:
        True if the evaluation was interrupted because the run has to stop. Nothing is logged then, and the resumed run
        starts with this evaluation.
    """
    if not inputs.evaluates:
        return False
    if trainer.settings.eval_mode:
        calibrate(trainer, inputs, log)
    began, averages = perf_counter(), Averages(trainer.ranks)
    with trainer.evaluating():
        for batch in inputs.evaluation(samples):
            if trainer.ranks.any(preemption.requested, trainer.device):
                return True
            outputs = trainer.forward(batch)
            share = trainer.division.whole(cropped(batch, outputs.logits))
            averages.add(trainer.losses(outputs, share))
    sample = f"sample {samples_of_last(inputs, samples)} of the evaluation set"
    log.pictures(
        trainer.iteration, "test", trainer.pictures(share.batch, outputs), render.in_words(trainer.tasks, sample)
    )
    losses = averages.values()
    log.test_row(trainer.iteration, losses | {"loss": trainer.objective.mean(losses)}, perf_counter() - began)
    return False


def cropped(batch: Batch, logits: Mapping[str, Tensor]) -> Batch:
    """Crop targets and masks to the size of the output, which can be smaller in eval mode than in training.

    If an odd number of voxels is cropped, the smaller half comes off the front, as in networks that crop in eval mode.
    """
    found = dict(batch)
    for name, output in logits.items():
        for key in (name, f"{name}_mask"):
            if key in batch:
                for axis in (2, 3, 4):
                    more = found[key].shape[axis] - output.shape[axis]
                    found[key] = found[key].narrow(axis, more // 2, output.shape[axis]) if more > 0 else found[key]
    return found
