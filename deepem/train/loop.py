"""The training loop. It reads from top to bottom as training does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepem.cli.training import LogOptions
from deepem.runs.folder import RunFolder
from deepem.train import guard, render
from deepem.train.evaluation import calibrate, evaluate
from deepem.train.inputs import Inputs
from deepem.train.logger import Logger
from deepem.train.objective import Losses, added
from deepem.train.preempt import Preemption
from deepem.train.profiler import Profiler
from deepem.train.trainer import Trainer
from deepem.train.whole_volume import WholeVolume, score_whole


def train(
    trainer: Trainer,
    inputs: Inputs,
    folder: RunFolder,
    log: Logger,
    profiler: Profiler,
    preemption: Preemption,
    when: LogOptions,
    max_iter: int,
    whole: WholeVolume | None = None,
) -> bool:
    """Take optimiser steps until `max_iter`; return whether the run saved and stopped early because it was asked to."""
    trainer.train_mode()
    for iteration in range(trainer.iteration + 1, max_iter + 1):
        trainer.begin(iteration)  # sets the learning rate and the random numbers of this step
        batch = inputs.next_batch(iteration)
        trainer.optimizer.zero_grad(set_to_none=True)
        losses: Losses = {}
        for share in trainer.division.shares(batch):  # one share, unless --accumulate splits the batch
            with trainer.synchronising(share):
                outputs = trainer.forward(share.batch)
                share_losses = trainer.losses(outputs, share)
                loss = trainer.weighted_sum(share_losses, share)
                trainer.backward(loss)
            losses = added(losses, share_losses)
        trainer.clip_gradients()
        inputs.prefetch()  # runs while the device computes
        stop_requested = trainer.ranks.ask(preemption.requested, trainer.device)
        if trainer.step():
            log.step(losses, inputs.waited)
        else:
            trainer.skip(batch, losses, inputs.samples_of(iteration))
            log.step(None, inputs.waited)
        trainer.completed = iteration
        profiler.step()

        stopping, last = stop_requested(), iteration == max_iter
        if iteration % when.avgs_intv == 0 or iteration <= when.warm_up:
            log.train_row(iteration, trainer.figures() | inputs.drawn(iteration))
        elif last:
            log.show(iteration)
        if iteration % when.imgs_intv == 0:
            words = render.in_words(trainer.tasks, told(inputs.samples_of(iteration)))
            log.pictures(iteration, "train", trainer.pictures(share.batch, outputs), words)
        if iteration % when.eval_intv == 0 and not stopping:
            stopping = evaluate(trainer, inputs, log, preemption, when.eval_iter)
        if when.segments_after(iteration) and not stopping:
            score_whole(trainer, inputs, log, whole)
        if stopping or last:
            preemption.leave()
        if iteration % when.chkpt_intv == 0 or last or stopping:
            save(trainer, inputs, folder, log, when)
        if stopping:
            return not last
    return False


def told(samples: Sequence[Mapping[str, Any]]) -> str:
    """Describe the sample in the picture: the first of the batch's last share."""
    return f"a sample among: {'; '.join(map(guard.told, samples))}" if len(samples) > 1 else guard.told(samples[0])


def save(trainer: Trainer, inputs: Inputs, folder: RunFolder, log: Logger, when: LogOptions) -> None:
    """Write the checkpoint of the current iteration."""
    calibrate(trainer, inputs, log)
    averages = log.train.state()  # a sum over all ranks
    if trainer.ranks.leads:
        state = trainer.state() | inputs.state() | {"averages": averages}
        path = folder.save(trainer.iteration, state, when.keep, when.keep_every)
        log.line(f"saved {path}")


def rescue(trainer: Trainer, inputs: Inputs, folder: RunFolder, log: Logger, when: LogOptions, start: int) -> bool:
    """Save the completed steps after an error, unless their checkpoint exists already.

    The other ranks may be gone, so nothing here waits for them.

    Returns:
        Whether the newest checkpoint is newer than iteration `start`.
    """
    trainer.back_to_completed()
    done = trainer.completed
    if trainer.ranks.leads and done > max(start, folder.saved):
        state = trainer.state() | inputs.state() | {"averages": log.train.state(together=False)}
        log.line(f"saved {folder.save(done, state, when.keep, when.keep_every)}")
    return done > start
