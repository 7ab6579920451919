"""From options to the parts of a run: volumes, samplers, network, optimiser, and where it goes on from."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepem import option, tasks
from deepem.data.loader import batches, generator
from deepem.train import volumes
from deepem.train.experiment import Experiment
from deepem.train.option import Options, folder, own
from deepem.train.step import Objective, optimizer
from deepem.utils import checkpoint, modules
from deepem.utils.argv import plug_in
from deepem.utils.errors import InputError, warn

Shape4 = tuple[int, int, int, int]


LOSS = ("loss", "size_average", "margin0", "margin1", "inverse", "class_balancing", "default_aux")
OPTIMISER = ("lr", "betas", "eps", "amsgrad", "momentum")


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


class Run:
    """All that the loop needs. Making one reads everything that a run reads and writes nothing.

    Attributes:
        start: Optimiser steps that were done before.
        resumed: The checkpoint that the run goes on from, if any.
    """

    def __init__(self, options: Options) -> None:
        self.device = torch.device(option.device((options["gpu_ids"] or [None])[0], options["cpu"]))
        self.tasks = option.chosen_tasks(options)
        set_sizes(options)
        self.data = data(options, self.tasks)
        options |= {"train_ids": self.data.train_ids, "val_ids": self.data.val_ids}
        self.options = options
        self.model = network(options, self.tasks, self.data.channels).to(self.device)
        self.objective = Objective(self.tasks, options, {name: options[name] for name in LOSS})
        settings = {name: options[name] for name in OPTIMISER}
        self.optimizer = optimizer(options["optim"], self.model.parameters(), **settings)
        self.modify = modules.load("modifier", options["modifier"]).Modifier() if options["modifier"] else None
        self.experiment = Experiment(folder(options), options)
        self.resumed = self.experiment.resume(options["chkpt_num"])
        self.start = self._restore()
        self._drawn: Counter[str] = Counter()

    def _restore(self) -> int:
        pretrain = self.options["pretrain"]
        if (state := self.resumed) is not None:
            checkpoint.load_weights(self.model, state["state_dict"], self.experiment.models)
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            return int(state["iter"])
        if pretrain:
            weights = checkpoint.read(Path(pretrain))["state_dict"]
            left = checkpoint.load_weights(self.model, weights, pretrain, matching=True)
            if left:
                warn(f"--pretrain {pretrain}: not in it, or of another shape: {', '.join(left)}")
        return 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the options: all that exact resume needs."""
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "spec": specs(self.options, self.tasks, self.data.channels),
        }

    @property
    def averages(self) -> Mapping[str, list[float]]:
        """The sums of losses that the checkpoint was written with, towards the next row of the log."""
        return {} if self.resumed is None else self.resumed.get("averages", {})

    def checkpoint_size(self) -> int:
        """Bytes of the next checkpoint, about: weights, gradients' two moments, and some."""
        return 4 * sum(p.numel() * p.element_size() for p in self.model.parameters())

    def modifier_rng(self, iteration: int) -> np.random.Generator:
        """The random numbers of the modifier in an iteration."""
        return generator(self.options["seed"], "modifier", iteration)

    def drawn(self, iteration: int) -> dict[str, float]:
        """Share of the samples up to an iteration that came from each volume; nothing if the sampler cannot tell.

        Which volume a sample comes from is its first draw, so it is drawn again here, where no worker need tell.
        """
        if not hasattr(self.data.train, "which"):
            return {}
        size, seed = self.options["batch_size"], self.options["seed"]
        for index in range(sum(self._drawn.values()), iteration * size):
            self._drawn[self.data.train.which(generator(seed, "train", index))] += 1
        return {f"drawn/{name}": count / (iteration * size) for name, count in sorted(self._drawn.items())}

    def batches(self, phase: str, first: int, last: int) -> Iterator[dict[str, Tensor]]:
        """Batches first, ..., last - 1 of 'train' or 'val', on the device."""
        for batch in batches(
            self.data.train if phase == "train" else self.data.val,
            seed=self.options["seed"],
            phase=phase,
            start=first,
            stop=last,
            batch_size=self.options["batch_size"],
            num_workers=self.options["num_workers"],
            pin_memory=self.device.type == "cuda",
        ):
            yield {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}


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
    arrays = {phase: volumes.prepared(refs, loaded, labels, phase) for phase, refs in (("train", train), ("val", kept))}
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
        augment = recipe.get_augmentation(phase == "train", **own("augment", recipe, options))
    spec = module.get_spec(*specs(options, chosen, channels))
    prob = options[f"{phase}_prob"]
    with plug_in("--sampler", options["sampler"]):
        flags = own("sampler", module, options)
        return module.Sampler(arrays, spec, phase == "train", augment, prob, **flags)  # type: ignore[no-any-return]


def specs(options: Options, chosen: Sequence[tasks.Task], channels: int) -> tuple[dict[str, Shape4], dict[str, Shape4]]:
    """The network's input and outputs: name -> (C, Z, Y, X)."""
    return {"input": (channels, *options["inputsz"])}, tasks.out_spec(chosen, options["outputsz"])


def network(options: Options, chosen: Sequence[tasks.Task], channels: int) -> nn.Module:
    """The network of a run, its first weights decided by the seed."""
    module = modules.load("model", options["model"])
    in_spec, out_spec = specs(options, chosen, channels)
    filled: dict[str, Any] = {"in_spec": in_spec, "out_spec": out_spec}
    if "cropsz" in inspect.signature(module.create_model).parameters:
        filled["cropsz"] = options["cropsz"]
    torch.manual_seed(options["seed"])
    with plug_in("--model", options["model"]):
        return module.create_model(**filled, **own("model", module, options))  # type: ignore[no-any-return]


def set_sizes(options: Options) -> None:
    """Fill in the output patch, and the crop that gives it, from the input patch and the model."""
    module = modules.load("model", options["model"])
    options["outputsz"], options["cropsz"] = option.output_patch(
        module, own("model", module, options), options["inputsz"], options["outputsz"]
    )
