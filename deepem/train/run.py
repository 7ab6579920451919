"""Train a network: the command line and the loop.

Run as ``python deepem/train/run.py``, ``python -m deepem.train.run`` or ``deepem-train``; ``--help`` lists the flags.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: deepem/train/ is first on the path, where the checkout belongs
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from deepem.train.option import Options, parse
from deepem.utils.argv import one_line_errors

if TYPE_CHECKING:  # torch and all that needs it are imported once the command line is known to be good
    from deepem.train.assemble import Run
    from deepem.train.logger import Logger


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    with one_line_errors("run.py"):
        train(*parse(words))


def train(options: Options, lines: Sequence[str]) -> None:
    """Train until `max_iter`, from the newest checkpoint of the run if it has one."""
    from deepem.train.assemble import Run
    from deepem.train.logger import Logger
    from deepem.train.render import pictures
    from deepem.utils.allocator import keep_memory

    keep_memory()
    run = Run(options)
    stop = options["max_iter"]
    stream = run.batches("train", run.start, stop)
    first = next(stream, None)  # a sample that cannot be made is bad input, and must leave no trace
    run.experiment.begin(run.start, lines, run.checkpoint_size())
    with Logger(run.experiment.logs, run.start, stop, run.averages) as log:
        log.line(f"{run.experiment.folder}: iterations {run.start} to {stop} on {run.device}")
        run.model.train()
        for iteration in range(run.start + 1, stop + 1):
            began = perf_counter()
            batch, first = first or next(stream), None
            waited = perf_counter() - began
            if run.modify is not None:
                batch = run.modify(batch, run.modifier_rng(iteration))

            outputs = run.model(batch["input"])
            parts = run.objective.parts(outputs, batch)
            run.optimizer.zero_grad(set_to_none=True)
            run.objective.total(parts).backward()
            run.optimizer.step()

            log.step(parts, waited)
            due = {name for name in ("avgs", "imgs", "eval", "chkpt") if iteration % options[f"{name}_intv"] == 0}
            if "avgs" in due or iteration <= options["warm_up"]:
                log.train_row(iteration, run.optimizer.param_groups[0]["lr"], run.drawn(iteration))
            elif iteration == stop:
                log.show(iteration)
            if "imgs" in due:
                log.pictures(iteration, "train", pictures(run.tasks, batch, outputs))
            if "eval" in due:
                evaluate(run, log, iteration)
            if "chkpt" in due or iteration == stop:
                save(run, log, iteration)


def evaluate(run: Run, log: Logger, iteration: int) -> None:
    """Log the losses on the evaluation set, if there is one: the same samples every time."""
    import torch

    from deepem.train.logger import Averages
    from deepem.train.render import pictures

    if run.data.val is None:
        return
    began, averages = perf_counter(), Averages()
    run.model.train(run.options["no_eval"])
    with torch.no_grad():
        for batch in run.batches("val", 0, -(-run.options["eval_iter"] // run.options["batch_size"])):
            outputs = run.model(batch["input"])
            averages.add(run.objective.parts(outputs, batch))
    run.model.train()
    log.pictures(iteration, "test", pictures(run.tasks, batch, outputs))
    log.test_row(iteration, averages.take(), perf_counter() - began)


def save(run: Run, log: Logger, iteration: int) -> None:
    """Write the checkpoint of an iteration."""
    path = run.experiment.save(iteration, run.state() | {"averages": log.train.state()})
    log.line(f"saved {path}")


if __name__ == "__main__":
    main()
