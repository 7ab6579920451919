"""The command line of inference."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem import option, tasks
from deepem.utils import argv, checkpoint
from deepem.utils.checkpoint import State
from deepem.utils.errors import InputError

Options = dict[str, Any]

SIZES = ("fov", "inputsz", "outputsz")


class Parser(argv.Parser):
    """A parser whose defaults are those that a checkpoint was trained with, once it is known."""

    trained: Mapping[str, Any] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse."""
        known = {action.dest for action in self._actions}
        self.set_defaults(**{name: value for name, value in self.trained.items() if name in known})
        return super().parse_known_args(args, namespace)


def parse(words: Sequence[str] | None = None) -> tuple[Options, int, State]:
    """The options of a run, and the checkpoint with its number.

    Raises:
        InputError: bad input, a checkpoint that is not there included.
        SystemExit: after --help.
    """
    parser = _parser()
    found: dict[str, tuple[int, State]] = {}

    def finish(options: argparse.Namespace) -> None:
        if not options.exp_name:
            raise InputError("--exp_name", "nothing", "the experiment to take the network from")
        if not found:
            found["checkpoint"] = find(options.exp_name, options.chkpt_num)
            parser.trained = _trained(found["checkpoint"][1].get("options") or {}, options)
            for name, value in parser.trained.items():
                if not getattr(options, name, None):
                    setattr(options, name, value)
        _complete(options)

    options = vars(argv.parse(parser, words, {"model": "model"}, finish))
    return options, *found["checkpoint"]


def folder(exp_name: str) -> Path:
    """Where the run lives: experiments/<exp_name> under the working directory."""
    name = Path(exp_name)
    return Path("experiments") / (Path(*name.parts[1:]) if name.parts[:1] == ("experiments",) else name)


def find(exp_name: str, number: int) -> tuple[int, State]:
    """A checkpoint of an experiment: the one asked for, or with 0 the newest that can be read.

    Raises:
        InputError: it is not there or cannot be read.
    """
    models = folder(exp_name) / "models"
    if number:
        return number, checkpoint.read(checkpoint.path_of(models, number))
    found = checkpoint.newest(models)
    if found is None:
        raise InputError(f"--exp_name {exp_name}", f"no readable checkpoint in {models}", "a trained experiment")
    return found


def _trained(stored: Mapping[str, Any], given: argparse.Namespace) -> Options:
    """What the checkpoint was trained with, as defaults of the flags here; tasks only where none is given."""
    trained: Options = {name: tuple(stored[name]) for name in SIZES if stored.get(name)}
    if given.fov or given.inputsz:
        trained.pop("outputsz", None)
        trained.pop("inputsz", None)
    machinery = {task.flag for task in tasks.TASKS} | {*SIZES, "edges", "exp_name", "chkpt_num", "data_dir"}
    trained |= {name: value for name, value in stored.items() if name not in machinery and name not in vars(given)}
    trained |= {name: stored[name] for name in stored if name == "model" or name.endswith("_num_channels")}
    if not any(getattr(given, task.flag) for task in tasks.TASKS):
        trained["edges"] = [tuple(edge) for edge in stored.get("edges") or ()]
        trained |= {task.flag: bool(stored.get(task.flag)) for task in tasks.TASKS}
    return trained


def _complete(options: argparse.Namespace) -> None:
    """Fill in what depends on other options."""
    if not options.model:
        raise InputError("--model", "nothing", "the model, which this checkpoint does not name")
    options.fov = options.fov or (20, 256, 256)
    options.inputsz = options.inputsz or options.fov
    chosen = option.chosen_tasks(vars(options))
    if options.long and options.long is not True and options.long != len(options.edges or ()):
        raise InputError("--long", options.long, f"{len(options.edges)}, the number of --edges")
    options.test_ids = options.test_ids or options.data_names
    if not (chosen and options.test_ids):
        raise InputError("--test_ids", "nothing", "the volumes under --data_dir to predict")


def _parser() -> Parser:
    p = Parser("forward.py", "Predict volumes with a trained network.")
    group = p.add_argument_group("experiment")
    group.add_argument("--exp_name", metavar="NAME", help="folder under experiments/")
    group.add_argument("--chkpt_num", type=argv.natural, default=0, metavar="N", help="checkpoint; 0: the newest")
    group.add_argument("--pretrain", action="store_true", help="load only the weights that match")
    group.add_argument("--no_eval", action="store_true", help="keep the network in train mode")

    option.add_model(p, None)
    option.add_device(p, "--gpu_id")
    group = p.add_argument_group("speed and memory")
    group.add_argument("--batch_size", type=argv.counting, default=1, metavar="N", help="patches per network call")
    group.add_argument("--amp", action="store_true", help="mixed precision (bfloat16)")
    option.add_tasks(p, weights=False)

    group = p.add_argument_group("volumes on disk")
    group.add_argument("--data_dir", default="", metavar="DIR", help="reads DIR/ID/INPUT_NAME")
    group.add_argument("--test_ids", nargs="+", metavar="ID", help="the volumes to predict")
    group.add_argument("--data_names", nargs="+", metavar="ID", help="the same as --test_ids")
    group.add_argument("--input_name", default="img.h5", metavar="FILE", help="HDF5, zarr, TIFF or numpy file")
    group.add_argument("--out_prefix", default="", metavar="TEXT", help="in front of the output's name")
    group.add_argument("--out_tag", default="", metavar="TEXT", help="behind the output's name")

    group = p.add_argument_group("patches and blending")
    group.add_argument(
        "--overlap", type=argv.fractions, default=(0.5,) * 3, metavar="Z,Y,X", help="below 1: a fraction"
    )
    group.add_argument("--stride", type=argv.fractions, metavar="Z,Y,X", help="in place of --overlap")
    group.add_argument("--blend", default="bump", help="bump, mean, precomputed (as bump), or '' for none")
    group.add_argument("--bump", default="zung", help="zung, wu or wu_no_crust")
    group.add_argument("--temperature", type=argv.positive, metavar="T", help="divide logits by max(T, 1)")
    return p
