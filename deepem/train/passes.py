"""Batches through the network: forward and backward in training, forward alone in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from torch import Tensor

from deepem.train.assemble import Run
from deepem.train.logger import Averages, Logger
from deepem.train.preempt import Preemption
from deepem.train.render import pictures
from deepem.train.step import Parts, added


def gradients(run: Run, batch: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Parts, Tensor]:
    """Add up the gradients of a batch, part by part; the outputs of the last part, the losses of all, their total."""
    pieces, counts = run.pieces(batch), run.counts(batch)
    parts: Parts = {}
    totals: list[Tensor] = []
    for number, piece in enumerate(pieces, 1):
        with run.synchronising(last=number == len(pieces)):
            with run.precision.autocast():
                outputs = run.model(run.laid_out(piece["input"]))
            losses = run.objective.parts(outputs, piece)
            loss = run.objective.total(losses, counts)
            run.precision.scaler.scale(loss * run.ranks.world).backward()  # DDP takes the mean over the ranks
        parts = added(parts, losses)
        totals.append(loss.detach())
    return outputs, parts, sum(totals[1:], totals[0])


def evaluate(run: Run, log: Logger, iteration: int, preemption: Preemption) -> bool:
    """Log the losses on the evaluation set, if there is one: the same samples every time.

    Nothing in the run is changed by it. Gives whether it was broken off because the run has to stop: then nothing is
    logged, and the next run begins with this evaluation.
    """
    if run.data.val is None:
        return False
    began, averages = perf_counter(), Averages(run.ranks)
    with run.evaluating():
        for batch in run.batches("val", 0, -(-run.options["eval_iter"] // run.options["batch_size"])):
            if run.ranks.any(preemption.requested, run.device):
                return True
            with run.precision.autocast():
                outputs = run.model(run.laid_out(batch["input"]))
            averages.add(run.objective.parts(outputs, batch))
    log.pictures(iteration, "test", pictures(run.tasks, batch, outputs))
    losses = averages.values()
    log.test_row(iteration, losses | {"loss": run.objective.mean(losses)}, perf_counter() - began)
    return False
