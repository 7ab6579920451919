"""The command line of training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepem import option
from deepem.utils import argv, modules
from deepem.utils.errors import InputError

PLUG_INS = {"data": "dataset", "sampler": "sampler", "augment": "augment", "modifier": "modifier", "model": "model"}

FREE = frozenset(
    {"exp_name", "data_dir", "max_iter", "num_workers", "gpu_ids", "cpu", "chkpt_num", "chkpt_intv", "eval_intv"}
    | {"eval_iter", "avgs_intv", "imgs_intv", "warm_up", "no_eval", "val_ids", "val_prob", "pretrain", "test"}
)
"""Options that may change when a run is resumed: they do not decide which samples train which network how."""

TEST_RUN = {"eval_intv": 100, "eval_iter": 10, "avgs_intv": 10, "imgs_intv": 100}
"""What --test sets, where it is not given."""

Options = dict[str, Any]


def parse(words: Sequence[str] | None = None) -> tuple[Options, list[str]]:
    """The options of a run, and the lines of an @file that give the same ones again.

    Raises:
        InputError: bad input.
        SystemExit: after --help.
    """
    parser = _parser()
    options = vars(argv.parse(parser, words, PLUG_INS, _finish))
    lines = argv.in_words(options, parser)
    return options, lines


def _parser() -> argv.Parser:
    p = argv.Parser("run.py", "Train a multi-task network on volume electron microscopy.")
    group = p.add_argument_group("experiment")
    group.add_argument("--exp_name", help="folder under experiments/ (default: <dataset>_<tasks>)")
    group.add_argument("--data_dir", default="data", metavar="DIR", help="where the datasets lie")
    group.add_argument("--seed", type=argv.natural, default=0, help="decides every sample and the first weights")
    group.add_argument("--test", action="store_true", help="a short trial under test/experiments, logged more often")

    group = p.add_argument_group("data (module: short name, dotted path or file)")
    group.add_argument("--data", nargs="+", metavar="MODULE", help="dataset modules")
    group.add_argument("--sampler", default="basic", metavar="MODULE", help="sampler module")
    group.add_argument("--augment", metavar="MODULE", help="augmentation recipe")
    group.add_argument("--modifier", metavar="MODULE", help="batch modifier, in training only")
    group.add_argument("--train_ids", nargs="+", metavar="ID", help="volumes to train on, ID or MODULE/ID")
    group.add_argument("--val_ids", nargs="+", metavar="ID", help="volumes to evaluate on")
    group.add_argument("--train_prob", type=argv.positive, nargs="+", metavar="P", help="weight of each of --train_ids")
    group.add_argument("--val_prob", type=argv.positive, nargs="+", metavar="P", help="weight of each of --val_ids")
    group.add_argument("--num_workers", type=argv.natural, default=1, metavar="N", help="processes that load samples")

    option.add_model(p, "rsunet")
    option.add_device(p, "--gpu_ids", nargs="+")
    option.add_tasks(p, weights=True)

    group = p.add_argument_group("loss")
    group.add_argument("--loss", type=argv.one_of("BCELoss", "MSELoss"), default="BCELoss", help="of affinities")
    _switch(group, "--size_average", "mean over voxels, not the sum")
    group.add_argument("--margin0", type=argv.fraction, default=0.0, metavar="M", help="margin of target 0")
    group.add_argument("--margin1", type=argv.fraction, default=0.0, metavar="M", help="margin of target 1")
    _switch(group, "--inverse", "margins smooth the labels, in place of masking what is within them")
    _switch(group, "--class_balancing", "balance cut and uncut edges of affinities")
    _switch(group, "--default_aux", "no margins for tasks other than affinities")

    group = p.add_argument_group("optimiser")
    group.add_argument("--optim", default="Adam", metavar="NAME", help="Adam, AdamW, SGD, or any name of torch.optim")
    group.add_argument("--lr", type=argv.positive, default=0.001, help="learning rate")
    group.add_argument("--betas", type=argv.fraction, nargs=2, default=[0.9, 0.999], metavar="B", help="of Adam")
    group.add_argument("--eps", type=argv.positive, default=1e-8, help="of Adam")
    _switch(group, "--amsgrad", "of Adam")
    group.add_argument("--momentum", type=argv.non_negative, default=0.9, help="of SGD")

    group = p.add_argument_group("run")
    group.add_argument("--max_iter", type=argv.counting, default=1_000_000, metavar="N", help="optimiser steps in all")
    group.add_argument("--batch_size", type=argv.counting, default=1, metavar="N", help="samples per step")
    group.add_argument("--avgs_intv", type=argv.counting, default=100, metavar="N", help="log averages every N steps")
    group.add_argument("--imgs_intv", type=argv.counting, default=1000, metavar="N", help="log images every N steps")
    group.add_argument("--warm_up", type=argv.natural, default=100, metavar="N", help="log each of the first N steps")
    group.add_argument("--eval_intv", type=argv.counting, default=1000, metavar="N", help="evaluate every N steps")
    group.add_argument("--eval_iter", type=argv.counting, default=100, metavar="N", help="samples per evaluation")
    _switch(group, "--no_eval", "evaluate in train mode")
    group.add_argument("--chkpt_intv", type=argv.counting, default=10_000, metavar="N", help="save every N steps")
    group.add_argument("--chkpt_num", type=argv.natural, default=0, metavar="N", help="resume from this checkpoint")
    group.add_argument("--pretrain", metavar="FILE", help="start from the weights of this checkpoint that match")
    return p


def _switch(group: argparse._ArgumentGroup, name: str, help: str) -> None:
    """Add a flag that is off unless it is given."""
    group.add_argument(name, action="store_true", help=help)


def _finish(options: argparse.Namespace) -> None:
    """Check what needs several options, and fill in the defaults that depend on others."""
    if not options.data:
        raise InputError(
            "--data", "nothing", f"a dataset module: one of {', '.join(modules.siblings('dataset'))}, or a file"
        )
    chosen = option.chosen_tasks(vars(options))
    names = [modules.short_name(name) for name in options.data]
    options.exp_name = options.exp_name or "_".join(names + [task.flag for task in chosen])
    options.fov = options.fov or (20, 256, 256)
    options.inputsz = options.inputsz or options.fov
    if options.test:
        for name, value in TEST_RUN.items():
            setattr(options, name, min(value, getattr(options, name)))


def folder(options: Options) -> Path:
    """Where the run lives: experiments/<exp_name> under the working directory."""
    name = Path(options["exp_name"])
    if name.parts[:1] == ("experiments",):
        name = Path(*name.parts[1:])
    return Path("test" if options["test"] else "", "experiments") / name


def own(kind: str, module: Any, options: Options) -> Options:
    """The values of the flags that a plug-in module takes."""
    return {flag.name: options[flag.name] for flag in modules.flags(kind, module)}
