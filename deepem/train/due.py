"""What is due after a step: rows of the log, pictures, an evaluation, a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from deepem.train.assemble import Run
from deepem.train.logger import Logger
from deepem.train.passes import evaluate, seen
from deepem.train.preempt import Preemption


def log_evaluate_save(
    run: Run,
    log: Logger,
    preemption: Preemption,
    stopping: bool,
    iteration: int,
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    norm: Tensor,
) -> bool:
    """Do what is due after an iteration; whether the run stops with it, saved: asked to before, or in an evaluation."""
    options, last = run.options, iteration == run.options["max_iter"]
    due = {name for name in ("avgs", "imgs", "eval", "chkpt") if iteration % options[f"{name}_intv"] == 0}
    if "avgs" in due or iteration <= options["warm_up"]:
        log.train_row(iteration, run.figures(iteration, norm))
    elif last:
        log.show(iteration)
    if "imgs" in due:
        log.pictures(iteration, "train", seen(run, batch, outputs))
    if "eval" in due and not stopping:
        stopping = evaluate(run, log, iteration, preemption)
    if "chkpt" in due or last or stopping:
        save(run, log, iteration)
    return stopping


def save(run: Run, log: Logger, iteration: int) -> None:
    """Write the checkpoint of an iteration."""
    averages = log.train.state()
    if run.ranks.leads:
        path = run.experiment.save(iteration, run.state() | {"averages": averages})
        log.line(f"saved {path}")
