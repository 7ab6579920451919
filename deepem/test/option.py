"""The command line of inference."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
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
    parser = machinery()
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


folder = option.run_folder


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
    """What the checkpoint was trained with, as defaults of the flags here; tasks only where none is given.

    Its edges hold where --edges is not given, whichever tasks are: --long 3 says how many there are, not which.
    """
    trained: Options = {name: tuple(stored[name]) for name in SIZES if stored.get(name)}
    if given.fov or given.inputsz:
        trained.pop("outputsz", None)
        trained.pop("inputsz", None)
    elsewhere = {task.flag for task in tasks.TASKS} | {*SIZES, "edges", "exp_name", "chkpt_num", "data_dir"}
    trained |= {name: value for name, value in stored.items() if name not in elsewhere and name not in vars(given)}
    counts = {task.channels_flag for task in tasks.TASKS} | {task.weights_flag for task in tasks.TASKS}
    trained |= {name: stored[name] for name in stored if name == "model" or name in counts}
    trained["edges"] = [tuple(edge) for edge in stored.get("edges") or ()]
    if not any(getattr(given, task.flag) for task in tasks.TASKS):
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
    if not (chosen and (options.test_ids or options.gs_input or options.dummy or options.spec)):
        raise InputError(
            "--test_ids", "nothing", "the volumes under --data_dir to predict (or --gs_input, --spec, --dummy)"
        )
    if options.variance and not options.test_aug:
        raise InputError("--variance", "no --test_aug", "the flips to take it over")
    if options.mask_edges == []:
        options.mask_edges = True
    if options.gs_input_norm and sum(options.gs_input_norm) >= 1:
        raise InputError("--gs_input_norm", options.gs_input_norm, "two shares that leave some between them")
    for flag, least in (("chunk_size", 1), ("size", 1), ("mirror", 0), ("crop_border", 0), ("overlap", 0)):
        if min(getattr(options, flag) or (least,)) < least:
            raise InputError(f"--{flag}", ",".join(map(str, getattr(options, flag))), f"{least} or more on every axis")
    if options.pad_small and options.crop_center:
        raise InputError("--pad_small", "--crop_center", "one of them")


def machinery() -> Parser:
    """The parser of the flags that are there whatever the model."""
    p = Parser("forward.py", "Predict volumes with a trained network.")
    group = p.add_argument_group("experiment")
    group.add_argument("--exp_name", metavar="NAME", help="folder under experiments/")
    group.add_argument("--chkpt_num", type=argv.natural, default=0, metavar="N", help="checkpoint; 0: the newest")
    group.add_argument("--pretrain", action="store_true", help="load only the weights that match")
    group.add_argument("--no_eval", action="store_true", help="keep the network in train mode")

    option.add_model(p, None)
    option.add_device(p, "--gpu_id")
    option.add_tasks(p, weights=False)
    _add_speed(p)
    _add_files(p)
    _add_cloud(p)
    _add_patches(p)
    return p


def _add_speed(p: Parser) -> None:
    group = p.add_argument_group("speed and memory")
    group.add_argument("--batch_size", type=argv.counting, default=1, metavar="N", help="patches per network call")
    group.add_argument("--amp", action="store_true", help="mixed precision (bfloat16); without it a GPU uses TF32")
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: half a minute or more at the start, faster patches",
    )
    group.add_argument(
        "--max_memory", type=argv.counting, metavar="MIB", help="at most so much (default: half of what is free)"
    )
    group.add_argument(
        "--acc_dtype",
        type=argv.one_of("float32", "float16", "bfloat16"),
        default="float32",
        help="number type of the running sums; half precision loses digits",
    )
    group.add_argument("--skip_background", action="store_true", help="patches of zeros only are 0, not computed")
    group.add_argument("--dummy", action="store_true", help="a benchmark: predict noise, write nothing")
    group.add_argument(
        "--dummy_inputsz", type=argv.counting, nargs=3, default=[128, 1024, 1024], metavar="N", help="z y x"
    )
    group.add_argument("--spec", metavar="FILE", help="a batch of cut-outs: JSON list of flags and values")
    group.add_argument(
        "--processes", type=argv.counting, metavar="N", help="processes for --spec (default: one per GPU)"
    )
    group.add_argument("--json", action="store_true", help="print a summary at the end")


def _add_files(p: Parser) -> None:

    group = p.add_argument_group("volumes on disk")
    group.add_argument("--data_dir", default="", metavar="DIR", help="reads DIR/ID/INPUT_NAME")
    group.add_argument("--test_ids", nargs="+", metavar="ID", help="the volumes to predict")
    group.add_argument("--data_names", nargs="+", metavar="ID", help="the same as --test_ids")
    group.add_argument("--input_name", default="img.h5", metavar="FILE", help="HDF5, zarr, TIFF or numpy file")
    group.add_argument("--out_prefix", default="", metavar="TEXT", help="in front of the output's name")
    group.add_argument("--out_tag", default="", metavar="TEXT", help="behind the output's name")
    group.add_argument(
        "--out_dtype", type=argv.one_of("float32", "uint8"), default="float32", help="uint8: probability * 255"
    )


def _add_cloud(p: Parser) -> None:
    group = p.add_argument_group("volumes behind cloud-volume (x,y,z)")
    group.add_argument(
        "--gs_input", default="", metavar="PATH", help="file://, gs://, s3://; {} is filled with --keywords"
    )
    group.add_argument("--gs_input_mask", default="", metavar="PATH", help="the image is 0 where this volume is not")
    group.add_argument(
        "--gs_input_norm",
        type=argv.fraction,
        nargs=2,
        metavar="P",
        help="stretch each section, clipping the darkest and the brightest share",
    )
    group.add_argument("--in_mip", type=argv.natural, default=0, metavar="N", help="level to read")
    group.add_argument("--cache", action="store_true", help="keep chunks that were read on disk")
    group.add_argument("-b", "--begin", type=xyz, metavar="X,Y,Z", help="first voxel, at mip 0")
    group.add_argument("-e", "--end", type=xyz, metavar="X,Y,Z", help="end, at mip 0")
    group.add_argument("-c", "--center", type=xyz, metavar="X,Y,Z", help="centre, at mip 0; with --size")
    group.add_argument("-s", "--size", type=xyz, metavar="X,Y,Z", help="size, at mip 0")
    group.add_argument("--gs_output", default="", metavar="PATH", help="folder of the output volumes")
    group.add_argument("--tags", type=_tags, metavar="JSON", help="output name -> folder name")
    group.add_argument("--keywords", nargs="*", default=[], metavar="WORD", help="fill each {} of the paths")
    group.add_argument(
        "-p",
        "--parallel",
        type=argv.counting,
        default=16,
        metavar="N",
        help="accepted, without effect: reading and writing are threads beside the network",
    )
    group.add_argument("-d", "--downsample", action="store_true", help="add levels of lower resolution")
    group.add_argument("-r", "--resolution", type=_resolution, metavar="X,Y,Z", help="nm (default: the input's)")
    group.add_argument(
        "-o", "--offset", type=xyz, metavar="X,Y,Z", help="where the input's first voxel is in the output, at mip 0"
    )
    group.add_argument("--chunk_size", type=xyz, default=(64, 64, 16), metavar="X,Y,Z", help="of new output volumes")


def _add_patches(p: Parser) -> None:
    group = p.add_argument_group("patches and blending")
    group.add_argument(
        "--overlap", type=argv.fractions, default=(0.5,) * 3, metavar="Z,Y,X", help="below 1: a fraction"
    )
    group.add_argument("--stride", type=argv.fractions, metavar="Z,Y,X", help="in place of --overlap")
    group.add_argument("--blend", default="bump", help="bump, mean, precomputed (as bump), or '' for none")
    group.add_argument("--bump", default="zung", help="zung, wu or wu_no_crust")
    group.add_argument(
        "--mask_edges",
        type=argv.edge,
        nargs="*",
        metavar="Z,Y,X",
        help="no weight for planes without partner; without a value: of the outputs' own edges",
    )
    group.add_argument("--temperature", type=argv.positive, metavar="T", help="divide logits by max(T, 1)")
    group.add_argument(
        "--test_aug",
        type=argv.natural,
        nargs="+",
        metavar="K",
        help="average over these of the 16 flips: bits z, y, x, transpose",
    )
    group.add_argument("--variance", action="store_true", help="write the variance over --test_aug too")
    group.add_argument(
        "--force_crop", type=argv.size, metavar="Z,Y,X", help="keep only the centre of each output patch"
    )
    group.add_argument("--mirror", type=argv.vector, metavar="Z,Y,X", help="pad the input by half of this on each side")
    group.add_argument("--pad_small", action="store_true", help="pad volumes smaller than a patch, by reflection")
    group.add_argument(
        "--crop_border", type=argv.vector, metavar="Z,Y,X", help="cut half of this off each side of the output"
    )
    group.add_argument("--crop_center", type=argv.size, metavar="Z,Y,X", help="keep the centre of the output")


def _three(text: str, kind: Callable[[str], Any]) -> tuple[Any, Any, Any]:
    x, y, z = (kind(part) for part in text.split(","))
    return x, y, z


def _above_0(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError
    return number


xyz = argv.value_of("three whole numbers x,y,z", lambda text: _three(text, int))
_resolution = argv.value_of("three numbers x,y,z above 0", lambda text: _three(text, _above_0))


def _tags(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'got {text}, wants JSON such as {{"affinity": "aff"}}')
    return {str(name): str(tag) for name, tag in found.items()}
