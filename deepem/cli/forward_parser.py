"""Parses the command line of `deepem forward`; the options stored in the checkpoint serve as defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepem import tasks
from deepem.cli import plugins
from deepem.cli.flags import filled, groups_of
from deepem.cli.forwarding import ForwardOptions
from deepem.cli.network_options import DEFAULT_FOV
from deepem.cli.parser import Given, Parser
from deepem.cli.task_flags import EDGES, TaskOptions, stored_rows, switch_flags, task_options
from deepem.tasks import Task
from deepem.utils import checkpoint
from deepem.utils.checkpoint import State
from deepem.utils.errors import InputError
from deepem.utils.files import inside, run_folder

SIZES = ("fov", "inputsz", "outputsz")


@dataclass(frozen=True)
class Found:
    """The checkpoint that a command line names.

    Attributes:
        number: The number of optimiser steps it was trained for.
        state: The contents of the file.
    """

    number: int
    state: State


def parser() -> Parser:
    """Create the parser of inference, without the flags of the model."""
    made = Parser(
        "forward.py",
        "Predict volumes with a trained network.",
        "forward.py --exp_name demo --data_dir data --test_ids t1",
    )
    groups = groups_of(ForwardOptions)
    for name in ("run", "files"):
        made.add_group(groups.pop(name))
    made.add_flags("tasks (default: those of the checkpoint)", [*switch_flags(tasks.TASKS), EDGES])
    for group in groups.values():
        made.add_group(group)
    return made


def parse(
    words: Sequence[str] | None = None, find: Callable[[str, int], Found] | None = None
) -> tuple[ForwardOptions, Found]:
    """Read the command line of inference. The checkpoint that it names is read once, while parsing.

    Args:
        words: The command line, or None for the process's own.
        find: Finds the checkpoint, instead of `find_checkpoint`. A caller with many command lines can cache checkpoints
            here.

    Raises:
        InputError: bad input, including a missing checkpoint.
        SystemExit: after --help.
    """
    reader, found = parser(), dict[str, Found]()

    def between(values: Mapping[str, Any]) -> Mapping[str, Any]:
        if not values["exp_name"]:
            raise InputError("--exp_name", "nothing", "the experiment to take the network from")
        found["checkpoint"] = (find or find_checkpoint)(values["exp_name"], values["chkpt_num"])
        rows = stored_rows(found["checkpoint"].state)
        own = [row for row in rows if row not in tasks.TASKS]
        if own:
            reader.add_flags("tasks of the checkpoint", switch_flags(own))
        trained = _trained(found["checkpoint"].state.get("options") or {}, values, rows)
        if not (values["model"] or trained.get("model")):
            raise InputError("--model", "nothing", "the model, which this checkpoint does not name")
        where = checkpoint.path_of(run_folder(values["exp_name"]) / "models", found["checkpoint"].number)
        for kind in ("model", "backbone"):
            if not values[kind]:
                plugins.require_own(kind, trained.get(kind), where)
        return {name: value for name, value in trained.items() if not values.get(name)}

    given = reader.read(words, between)
    state = found["checkpoint"].state
    return options_of(_as_it_was(given, state.get("options")), stored_rows(state)), found["checkpoint"]


def _as_it_was(given: Given, stored: Mapping[str, Any] | None) -> Given:
    """Return values for plug-in flags that are newer than the checkpoint: those that match how it was trained."""
    older: dict[str, Any] = {}
    for _, _, module in given.modules if stored else ():
        names = getattr(module, "formerly", {}).keys() - (stored or {}).keys() - given.typed
        older |= {name: module.formerly[name] for name in names & given.plug_in_flags.keys()}
    return replace(given, values={**given.values, **older}, plug_in_flags={**given.plug_in_flags, **older})


def options_of(given: Given, rows: Sequence[Task]) -> ForwardOptions:
    """Create the options of a run from its command line and its table of tasks."""
    values = dict(given.values)
    chosen = task_options(rows, values)
    values["fov"] = values["fov"] or DEFAULT_FOV
    values["inputsz"] = values["inputsz"] or values["fov"]
    _check(values, chosen)
    groups: dict[str, Any] = {name: filled(group, values) for name, group in groups_of(ForwardOptions).items()}
    return ForwardOptions(tasks=chosen, plug_in_flags=given.plug_in_flags, typed=given.typed, **groups)


def find_checkpoint(exp_name: str, number: int) -> Found:
    """Find a checkpoint of an experiment: the requested number, or with 0 the newest readable one.

    Raises:
        InputError: the checkpoint does not exist or cannot be read.
    """
    models = run_folder(exp_name) / "models"
    if number:
        return Found(number, checkpoint.read(checkpoint.path_of(models, number)))
    found = checkpoint.newest(models)
    if found is None:
        raise InputError(f"--exp_name {exp_name}", f"no readable checkpoint in {models}", "a trained experiment")
    return Found(*found)


def _trained(stored: Mapping[str, Any], given: Mapping[str, Any], rows: Sequence[Task]) -> dict[str, Any]:
    """Return the checkpoint's training options as defaults. Its tasks are defaults only if the user names no task.

    Its edges are used unless --edges is given, even if tasks are: --long 3 says how many edges there are, not which.
    """
    trained: dict[str, Any] = {name: tuple(stored[name]) for name in SIZES if stored.get(name)}
    if given["fov"] or given["inputsz"]:
        trained.pop("outputsz", None)
        trained.pop("inputsz", None)
    flags = [task.flag for task in rows]
    shapes = {name for task in rows for name in (task.channels_flag, task.weights_flag)}
    elsewhere = {*flags, *SIZES, "edges", "exp_name", "chkpt_num", "data_dir"}
    trained |= {name: value for name, value in stored.items() if name not in elsewhere and name not in given}
    trained |= {name: stored[name] for name in stored if name in ("model", "backbone") or name in shapes}
    trained["edges"] = [tuple(edge) for edge in stored.get("edges") or ()]
    if not any(given.get(flag) for flag in flags):
        trained |= {flag: bool(stored.get(flag)) for flag in flags}
    return trained


def _check(values: Mapping[str, Any], tasks_given: TaskOptions) -> None:
    """Refuse combinations of options that contradict each other."""
    chosen = tasks_given.chosen
    for task in chosen:
        count = values.get(task.flag)
        if task.edges and isinstance(count, int) and count is not True and count != len(task.edges):
            raise InputError(f"--{task.flag}", count, f"{len(task.edges)}, the number of --edges")
    wanted = (values["test_ids"], values["data_names"], values["gs_input"], values["dummy"], values["spec"])
    if not any(wanted):
        wants = "the volumes under --data_dir to predict (or --gs_input, --spec, --dummy)"
        raise InputError("--test_ids", "nothing", wants)
    _check_names(values)
    if values["variance"] and not values["test_aug"]:
        raise InputError("--variance", "no --test_aug", "the flips to take it over")
    if values["gs_input_norm"] and sum(values["gs_input_norm"]) >= 1:
        raise InputError("--gs_input_norm", values["gs_input_norm"], "two shares that leave some between them")
    for flag, least in (("chunk_size", 1), ("size", 1), ("mirror", 0), ("crop_border", 0), ("overlap", 0)):
        if min(values[flag] or (least,)) < least:
            raise InputError(f"--{flag}", ",".join(map(str, values[flag])), f"{least} or more on every axis")
    if values["context"] != "none" and (values["mirror"] or values["pad_small"]):
        raise InputError("--context", f"{values['context']} besides --mirror or --pad_small", "one of them")
    if values["context"] == "outside" and not values["gs_input"]:
        raise InputError(
            "--context", "outside without --gs_input", "none or mirror: of a file, everything is predicted"
        )
    if values["pad_small"] and values["crop_center"]:
        raise InputError("--pad_small", "--crop_center", "one of them")


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse names that would read or write outside their folders."""
    for flag in ("test_ids", "data_names"):
        for name in values[flag] or ():
            inside(f"--{flag}", name)
    for flag in ("out_prefix", "out_tag"):
        if {"/", "\0"} & set(values[flag]):
            raise InputError(f"--{flag}", values[flag], "a part of a file's name, without /")
