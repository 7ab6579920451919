"""The command line of training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepem import option
from deepem.train.schedule import SCHEDULES
from deepem.utils import argfile, argv, modules
from deepem.utils.errors import InputError

PLUG_INS = {"data": "dataset", "sampler": "sampler", "augment": "augment", "modifier": "modifier", "model": "model"}

ROUNDING = frozenset({"amp", "compile", "channels_last", "tf32", "cudnn_benchmark", "deterministic"})
"""Options that belong to the device, as it were: like it they may change, and then numbers differ in their rounding."""

FREE = ROUNDING | frozenset(
    {"exp_name", "data_dir", "max_iter", "num_workers", "gpu_ids", "cpu", "chkpt_num", "chkpt_intv", "eval_intv"}
    | {"eval_iter", "avgs_intv", "imgs_intv", "warm_up", "no_eval", "val_ids", "val_prob", "pretrain", "test"}
    | {"keep", "keep_every", "skip_nan", "worker_timeout", "rank_timeout", "ray", "profile"}
)
"""Options that may change when a run is resumed: they do not decide which samples train which network how."""

AMP = "mixed precision, bf16, fp16 or off; auto: bf16 where it is faster"

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
    lines = argfile.in_words(options, parser)
    return options, lines


def _parser() -> argv.Parser:
    p = argv.Parser("run.py", "Train a multi-task network on volume electron microscopy.")
    _add_data(p)
    option.add_model(p, "rsunet")
    option.add_device(p, "--gpu_ids", nargs="+")
    _add_processes(p)
    option.add_tasks(p, weights=True)
    _add_loss(p)
    _add_optimiser(p)
    _add_schedule(p)
    _add_speed(p)
    _add_run(p)
    return p


def _add_data(p: argv.Parser) -> None:
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
    group.add_argument(
        "--worker_timeout", type=argv.positive, default=60.0, metavar="S", help="seconds until a silent worker hangs"
    )


def _add_processes(p: argv.Parser) -> None:
    group = p.add_argument_group("several processes (or several --gpu_ids, or torchrun)")
    group.add_argument("--ray", type=argv.natural, default=0, metavar="N", help="train in N processes of a Ray cluster")
    group.add_argument(
        "--rank_timeout", type=argv.positive, default=600.0, metavar="S", help="seconds until a silent process hangs"
    )


def _add_loss(p: argv.Parser) -> None:
    group = p.add_argument_group("loss")
    group.add_argument("--loss", type=argv.one_of("BCELoss", "MSELoss"), default="BCELoss", help="of affinities")
    _switch(group, "--size_average", "mean over voxels, not the sum")
    group.add_argument("--margin0", type=argv.fraction, default=0.0, metavar="M", help="margin of target 0")
    group.add_argument("--margin1", type=argv.fraction, default=0.0, metavar="M", help="margin of target 1")
    _switch(group, "--inverse", "margins smooth the labels, in place of masking what is within them")
    _switch(group, "--class_balancing", "balance cut and uncut edges of affinities")
    _switch(group, "--default_aux", "no margins for tasks other than affinities")


def _add_optimiser(p: argv.Parser) -> None:
    group = p.add_argument_group("optimiser")
    group.add_argument("--optim", default="Adam", metavar="NAME", help="Adam, AdamW, SGD, or any name of torch.optim")
    group.add_argument("--lr", type=argv.positive, default=0.001, help="learning rate")
    group.add_argument("--betas", type=argv.fraction, nargs=2, default=[0.9, 0.999], metavar="B", help="of Adam")
    group.add_argument("--eps", type=argv.positive, default=1e-8, help="of Adam")
    _switch(group, "--amsgrad", "of Adam")
    group.add_argument("--momentum", type=argv.non_negative, default=0.9, help="of SGD")
    group.add_argument("--weight_decay", type=argv.non_negative, default=0.0, help="of kernels, not of biases")
    group.add_argument("--clip", type=argv.non_negative, default=0.0, metavar="NORM", help="longest gradient; 0: any")
    group.add_argument(
        "--accumulate", type=argv.counting, default=1, metavar="N", help="take each batch in N parts, to save memory"
    )
    group.add_argument("--ema", type=argv.fraction, default=0.0, metavar="DECAY", help="average weights, such as 0.999")
    group.add_argument("--freeze", nargs="+", metavar="NAME", help="parameters that stay: core.enc, or *.bias")
    group.add_argument(
        "--lr_scale", type=_scale, nargs="+", metavar="NAME=X", help="factor on the learning rate of parameters"
    )


def _add_schedule(p: argv.Parser) -> None:
    group = p.add_argument_group("course of the learning rate")
    group.add_argument("--lr_warmup", type=argv.natural, default=0, metavar="N", help="rise in the first N steps")
    group.add_argument("--lr_schedule", type=argv.one_of(*SCHEDULES), default="constant", help=", ".join(SCHEDULES))
    group.add_argument("--lr_until", type=argv.counting, metavar="N", help="end of cosine, poly (default: --max_iter)")
    group.add_argument("--lr_steps", type=argv.counting, nargs="+", metavar="N", help="where step falls")
    group.add_argument("--lr_gamma", type=argv.positive, default=0.1, metavar="X", help="by how much step falls")
    group.add_argument("--lr_power", type=argv.positive, default=0.9, metavar="X", help="of poly")


def _add_speed(p: argv.Parser) -> None:
    group = p.add_argument_group("speed")
    group.add_argument("--amp", type=argv.one_of("auto", "bf16", "fp16", "off"), default="auto", help=AMP)
    _either(group, "--channels_last", None, "channels of a voxel side by side (default: not in float32 on a CPU)")
    _either(group, "--compile", False, "torch.compile the network: minutes at the start, faster steps on a GPU")
    _either(group, "--tf32", True, "multiply float32 in TF32 on a GPU")
    _either(group, "--cudnn_benchmark", True, "let cuDNN try its algorithms out")
    _switch(group, "--deterministic", "the same bits in every run on a GPU too; slower")
    _switch(group, "--sync_bn", "batch norm over all GPUs")
    group.add_argument("--profile", type=argv.natural, default=0, metavar="N", help="trace N steps to logs/trace.json")


def _add_run(p: argv.Parser) -> None:
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
    group.add_argument("--keep", type=argv.natural, default=0, metavar="N", help="newest checkpoints kept; 0: all")
    group.add_argument("--keep_every", type=argv.natural, default=0, metavar="N", help="and those of every N-th step")
    group.add_argument(
        "--skip_nan", type=argv.natural, default=0, metavar="N", help="skip N steps with NaN before giving up"
    )
    group.add_argument("--pretrain", metavar="FILE", help="start from the weights of this checkpoint that match")


def _scale(text: str) -> tuple[str, float]:
    """A factor for some parameters, `core.enc=0.1`."""
    name, _, factor = text.strip().rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"got {text}, wants NAME=FACTOR such as core.enc=0.1")
    return name, float(argv.non_negative(factor))


def _either(group: argparse._ArgumentGroup, name: str, default: bool | None, help: str) -> None:
    """Add a flag that can be given either way."""
    group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=help)


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
    if options.lr_schedule in ("cosine", "poly"):
        options.lr_until = options.lr_until or options.max_iter
    if options.lr_schedule == "step" and not options.lr_steps:
        raise InputError("--lr_schedule", "step without --lr_steps", "the iterations after which the rate falls")
    if options.test:
        for name, value in TEST_RUN.items():
            setattr(options, name, min(value, getattr(options, name)))


def folder(options: Options) -> Path:
    """Where the run lives."""
    return option.run_folder(options["exp_name"], options["test"])
