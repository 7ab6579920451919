"""Train a network: the command line.

Run as ``python deepem/train/run.py``, ``python -m deepem.train.run``, ``deepem train`` or ``deepem-train``, alone or
under torchrun. ``--help`` lists the flags. `deepem.utils.exit_codes` lists the exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: replace deepem/train/ on the path by the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from deepem.cli.one_line import one_line_errors
from deepem.cli.train_parser import parse
from deepem.train.launch import end_with_launcher, launch_on
from deepem.train.preempt import Preemption
from deepem.train.rank_errors import first_cause_speaks


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train, in one process per GPU."""
    preemption = Preemption()
    with one_line_errors("run.py", words) as flags, first_cause_speaks(lambda: preemption.requested), preemption:
        end_with_launcher()
        options = parse(words)
        flags.update(options.flat())
        if options.device.ray:
            from deepem.train.ray_cluster import launch_on_ray

            raise SystemExit(launch_on_ray(options))
        if len(options.device.gpu_ids or ()) > 1 and "RANK" not in os.environ:
            given = sys.argv[1:] if words is None else words
            raise SystemExit(launch_on(options.device.gpu_ids or (), options.device.cpu, Path(__file__), given))
        # import torch only after the command line has proved valid
        from deepem.train.session import train

        train(options, preemption)


if __name__ == "__main__":
    main()
