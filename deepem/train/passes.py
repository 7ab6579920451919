"""Batches through the network: forward and backward in training, forward alone in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from torch import Tensor

from deepem.train.assemble import Run
from deepem.train.logger import Averages, Logger
from deepem.train.preempt import Preemption
from deepem.train.render import Picture, pictures
from deepem.train.step import Parts, added


def losses_of(
    run: Run, batch: Mapping[str, Tensor], classes: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], Parts]:
    """Outputs and losses of a batch; a network that gives its own losses gives no outputs here."""
    batch = {**batch, "input": run.laid_out(batch["input"])}
    with run.precision.autocast():
        found = run.model(batch if run.objective.own else batch["input"])
    return {} if run.objective.own else found, run.objective.parts(found, batch, classes)


def gradients(run: Run, batch: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Parts, Tensor]:
    """Add up the gradients of a batch, part by part; the outputs of the last part, the losses of all, their total."""
    pieces, classes = run.pieces(batch), run.classes(batch)
    parts: Parts = {}
    totals: list[Tensor] = []
    counts = run.counts(batch)
    for number, piece in enumerate(pieces, 1):
        with run.synchronising(last=number == len(pieces)):
            outputs, losses = losses_of(run, piece, classes)
            loss = run.objective.total(losses, run.counts_of(losses) if run.objective.own else counts)
            run.precision.scaler.scale(loss * run.ranks.world).backward()  # DDP takes the mean over the ranks
        parts = added(parts, losses)
        totals.append(loss.detach())
    return outputs, parts, sum(totals[1:], totals[0])


def seen(run: Run, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Picture]:
    """Pictures of a batch and its outputs, which are made here where there are none."""
    if run.objective.own:
        with run.evaluating(), run.precision.autocast():
            outputs = run.network(run.laid_out(batch["input"]))
    return pictures([task for task in run.tasks if task.name in outputs], batch, outputs)


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
            outputs, parts = losses_of(run, batch, run.classes(batch))
            averages.add(parts)
    log.pictures(iteration, "test", seen(run, batch, outputs))
    losses = averages.values()
    log.test_row(iteration, losses | {"loss": run.objective.mean(losses)}, perf_counter() - began)
    return False
