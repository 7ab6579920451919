"""Train a network: the command line and the loop.

Run as ``python deepem/train/run.py``, ``python -m deepem.train.run`` or ``deepem-train``, alone or under torchrun.
``--help`` lists the flags. Exit codes: 0 complete, 2 bad input, 85 asked to stop and saved.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: deepem/train/ is first on the path, where the checkout belongs
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from deepem.train.cause import first_cause_speaks
from deepem.train.option import Options, parse
from deepem.train.preempt import STOPPED, Preemption
from deepem.utils.argv import one_line_errors


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train, on several GPUs in as many processes."""
    preemption = Preemption()
    with one_line_errors("run.py"), first_cause_speaks(lambda: preemption.requested), preemption:
        options, lines = parse(words)
        if options["ray"]:
            from deepem.train.cluster import launch_on_ray

            raise SystemExit(launch_on_ray(options, lines))
        if len(options["gpu_ids"] or ()) > 1 and "RANK" not in os.environ:
            from deepem.train.launch import launch_on

            raise SystemExit(launch_on(options["gpu_ids"], options["cpu"], Path(__file__), words or sys.argv[1:]))
        train(options, lines, preemption)


def train(options: Options, lines: Sequence[str], preemption: Preemption) -> None:
    """Train until `max_iter`, from the newest checkpoint of the run if it has one.

    Args:
        options: Of the command line.
        lines: The command line, for the folder of the run.
        preemption: Whether the run is asked to stop, entered.
    """
    # torch and all that needs it are imported once the command line is known to be good
    from deepem.train.assemble import Run
    from deepem.train.device import enough_memory
    from deepem.train.due import log_evaluate_save
    from deepem.train.logger import Logger
    from deepem.train.passes import evaluate, gradients
    from deepem.train.profiler import Profiler
    from deepem.utils.allocator import keep_memory

    keep_memory()
    run = Run(options)
    stop = options["max_iter"]
    stream = run.batches("train", run.start, stop)
    first = next(stream, None)  # a sample that cannot be made is bad input, and must leave no trace
    preemption.defer()
    run.settle(lines)
    logs = run.experiment.logs
    with (
        enough_memory(options["inputsz"], options["batch_size"]),
        Logger(logs, run.start, stop, run.averages, run.ranks) as log,
        Profiler(options["profile"], logs) as profiler,
    ):
        for line in run.plan():
            log.line(line)
        if run.evaluation_is_missing():
            evaluate(run, log, run.start, preemption)
        run.training()
        iteration, stopping = run.start, False
        for iteration in range(run.start + 1, stop + 1):
            batch, waited = (next(stream), stream.waited) if first is None else (first, 0.0)
            first = None
            run.begin(iteration)
            batch = run.modified(batch, iteration)
            outputs, parts, loss = gradients(run, batch)
            norm = run.gradient_norm()
            stream.fetch()  # while the device computes
            asked_to_stop = run.ranks.ask(preemption.requested, run.device)
            if run.step(iteration, loss, norm):
                log.step(parts, waited)
            else:
                run.skip(iteration, batch, parts, norm)
                log.step(None, waited)
            profiler.step()

            stopping = log_evaluate_save(run, log, preemption, asked_to_stop(), iteration, batch, outputs, norm)
            if stopping:
                break
    run.leave()
    if stopping and iteration < stop:
        raise SystemExit(STOPPED)


if __name__ == "__main__":
    main()
