"""From options to the parts of a run: volumes, samplers, network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepem import option, tasks
from deepem.option import own
from deepem.train import volumes
from deepem.train.option import Options
from deepem.utils import modules
from deepem.utils.argv import plug_in
from deepem.utils.errors import InputError, warn

Shape4 = tuple[int, int, int, int]


@dataclass
class Data:
    """Where samples come from.

    Attributes:
        train: Sampler of the training set.
        val: Sampler of the evaluation set, or None where there is none.
        train_ids: The ids that are trained on, as written on the command line.
        val_ids: The ids that are evaluated on.
        channels: Channels of the images.
    """

    train: Any
    val: Any
    train_ids: list[str]
    val_ids: list[str]
    channels: int


def data(options: Options, chosen: Sequence[tasks.Task]) -> Data:
    """The samplers of a run; the model's patch sizes must stand in the options.

    Raises:
        InputError: ids, files, labels, probabilities or sizes that cannot be used.
    """
    sets = []
    for word in options["data"]:
        module = modules.load("dataset", word)
        sets.append(volumes.DataSet(word, module, own("dataset", module, options)))
    train, val = volumes.choose_ids(sets, options["train_ids"], options["val_ids"])
    for flag, refs in (("train_prob", train), ("val_prob", val)):
        if options[flag] and len(options[flag]) != len(refs):
            ids = ", ".join(ref.word for ref in refs)
            raise InputError(f"--{flag}", f"{len(options[flag])} numbers", f"{len(refs)}, one for each of {ids}")
    loaded = volumes.load([*train, *val], Path(options["data_dir"]), chosen)
    volumes.require_labels(train, loaded, chosen)
    kept = volumes.without_overlap(train, val, loaded, explicit=bool(options["val_ids"]))
    if not kept:
        warn("no evaluation: no volume is left for --val_ids")
    labels = tasks.labels(chosen)
    arrays = {
        phase: volumes.prepared(refs, loaded, labels, phase, chosen)
        for phase, refs in (("train", train), ("val", kept))
    }
    channels = _channels({**arrays["train"], **arrays["val"]})
    made = {phase: _sampler(options, chosen, arrays[phase], phase, channels) for phase in arrays if arrays[phase]}
    return Data(made["train"], made.get("val"), [r.word for r in train], [r.word for r in kept], channels)


def _channels(arrays: Mapping[str, Any]) -> int:
    found = {name: leaf["img"].shape[0] for name, volume in arrays.items() for leaf in volumes.leaves(volume)}
    if len(set(found.values())) > 1:
        raise InputError("--data", f"images of different channels ({found})", "one number of channels")
    return int(next(iter(found.values())))


def _sampler(
    options: Options, chosen: Sequence[tasks.Task], arrays: Any, phase: str, channels: int
) -> Callable[..., Any]:
    module = modules.load("sampler", options["sampler"])
    augment = None
    if options["augment"]:
        recipe = modules.load("augment", options["augment"])
        with plug_in("--augment", options["augment"]):
            augment = recipe.get_augmentation(phase == "train", **own("augment", recipe, options))
    spec = module.get_spec(*specs(options, chosen, channels), **modules.accepted(module.get_spec, tasks=chosen))
    prob = options[f"{phase}_prob"]
    with plug_in("--sampler", options["sampler"]):
        flags = own("sampler", module, options) | modules.accepted(module.Sampler, tasks=chosen)
        return module.Sampler(arrays, spec, phase == "train", augment, prob, **flags)  # type: ignore[no-any-return]


def modifier(options: Options) -> Callable[..., Any] | None:
    """The batch modifier of a run, if it has one."""
    if not options["modifier"]:
        return None
    module = modules.load("modifier", options["modifier"])
    with plug_in("--modifier", options["modifier"]):
        return module.Modifier(**own("modifier", module, options))  # type: ignore[no-any-return]


def specs(options: Options, chosen: Sequence[tasks.Task], channels: int) -> tuple[dict[str, Shape4], dict[str, Shape4]]:
    """The network's input and outputs: name -> (C, Z, Y, X)."""
    return {"input": (channels, *options["inputsz"])}, tasks.out_spec(chosen, options["outputsz"])


def network(options: Options, chosen: Sequence[tasks.Task], channels: int) -> nn.Module:
    """The network of a run, its first weights decided by the seed."""
    module = modules.load("model", options["model"])
    in_spec, out_spec = specs(options, chosen, channels)
    torch.manual_seed(options["seed"])
    with plug_in("--model", options["model"]):
        flags = own("model", module, options)
        made: nn.Module = option.create_model(module, options["cropsz"], in_spec=in_spec, out_spec=out_spec, **flags)
    return made


def set_sizes(options: Options, chosen: Sequence[tasks.Task]) -> None:
    """Fill in the output patch, and the crop that gives it, from the input patch and the model.

    Raises:
        InputError: a patch that the network or an edge does not fit in.
    """
    module = modules.load("model", options["model"])
    options["outputsz"], options["cropsz"] = option.output_patch(
        module, own("model", module, options), options["inputsz"], options["outputsz"]
    )
    for edge in (edge for task in chosen for edge in task.edges):
        if any(abs(d) >= n for d, n in zip(edge, options["outputsz"], strict=True)):
            words = (",".join(map(str, vector)) for vector in (edge, options["outputsz"]))
            raise InputError("--edges", next(words), f"edges shorter than the output patch, {next(words)}")
