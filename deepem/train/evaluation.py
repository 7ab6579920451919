"""Between training steps: the losses on the evaluation set, and the statistics of the weights that are used."""

from __future__ import annotations

from time import perf_counter

from deepem.train.inputs import Inputs
from deepem.train.logger import Averages, Logger
from deepem.train.preempt import Preemption
from deepem.train.trainer import Trainer


def calibrate(trainer: Trainer, inputs: Inputs, log: Logger) -> None:
    """Take the batch-norm statistics of the weights that are used anew, where that is asked for, and tell the cost."""
    if not trainer.used.to_calibrate:
        return
    began, size = perf_counter(), inputs.loading.batch_size
    samples = -(-trainer.used.samples // size) * size
    trainer.calibrate(inputs.calibration(samples))
    seconds = perf_counter() - began
    log.pause(seconds)
    log.line(f"batch-norm statistics taken over {samples} training samples  ({seconds:.1f} s)")


def evaluate(trainer: Trainer, inputs: Inputs, log: Logger, preemption: Preemption, samples: int) -> bool:
    """Log the losses on the evaluation set, if there is one: the same samples every time.

    Nothing of the training state changes.

    Returns:
        Whether the evaluation was broken off because the run has to stop. Then nothing is logged, and the next run
        begins with this evaluation.
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
            share = trainer.whole(batch)
            outputs = trainer.forward(share.batch)
            averages.add(trainer.losses(outputs, share))
    log.pictures(trainer.iteration, "test", trainer.pictures(share.batch, outputs))
    losses = averages.values()
    log.test_row(trainer.iteration, losses | {"loss": trainer.objective.mean(losses)}, perf_counter() - began)
    return False
