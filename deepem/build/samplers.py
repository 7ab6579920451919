"""From options to the samplers of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem import tasks
from deepem.build import volumes
from deepem.build.network import PatchSizes, specs
from deepem.cli.plugins import PlugIn
from deepem.cli.training import TrainOptions
from deepem.data import cache
from deepem.protocols import Modifier, Sampler
from deepem.tasks import Task
from deepem.utils.errors import InputError, warn


@dataclass(frozen=True)
class Samplers:
    """Where samples come from.

    Attributes:
        train: Draws training samples.
        val: Draws evaluation samples, or None where there is no volume to evaluate on.
        train_ids: The ids that are trained on, as they are written on the command line.
        val_ids: The ids that are evaluated on.
        channels: Channels of the images.
    """

    train: Sampler
    val: Sampler | None
    train_ids: list[str]
    val_ids: list[str]
    channels: int


def create_samplers(options: TrainOptions, chosen: Sequence[Task], sizes: PatchSizes) -> Samplers:
    """Load the volumes of a run and make its samplers.

    Raises:
        InputError: ids, files, labels, probabilities or sizes that cannot be used.
    """
    data = options.data
    sets = [volumes.DataSet(options.plug_in("dataset", word)) for word in data.data or ()]
    train, val = volumes.choose_ids(sets, data.train_ids, data.val_ids)
    for flag, given, refs in (("train_prob", data.train_prob, train), ("val_prob", data.val_prob, val)):
        if given and len(given) != len(refs):
            ids = ", ".join(ref.word for ref in refs)
            raise InputError(f"--{flag}", f"{len(given)} numbers", f"{len(refs)}, one for each of {ids}")
    loaded = volumes.load([*train, *val], Path(data.data_dir), chosen, lazy=data.lazy)
    volumes.require_labels(train, loaded, chosen)
    kept = volumes.without_overlap(train, val, loaded, explicit=bool(data.val_ids))
    if not kept:
        warn("no evaluation: no volume is left for --val_ids")
    labels = tasks.labels(chosen)
    arrays = {
        phase: volumes.prepared(refs, loaded, labels, phase, chosen)
        for phase, refs in (("train", train), ("val", kept))
    }
    cache.share(arrays["train"], arrays["val"], data.cache_mb << 20, options.speed.num_workers)
    channels = _channels({**arrays["train"], **arrays["val"]})
    spec = specs(chosen, channels, sizes)
    return Samplers(
        train=_sampler(options, chosen, arrays["train"], spec, is_train=True),
        val=_sampler(options, chosen, arrays["val"], spec, is_train=False) if arrays["val"] else None,
        train_ids=[ref.word for ref in train],
        val_ids=[ref.word for ref in kept],
        channels=channels,
    )


def _channels(arrays: Mapping[str, Any]) -> int:
    found = {name: leaf["img"].shape[0] for name, volume in arrays.items() for leaf in volumes.leaves(volume)}
    if len(set(found.values())) > 1:
        raise InputError("--data", f"images of different channels ({found})", "one number of channels")
    return int(next(iter(found.values())))


def _sampler(options: TrainOptions, chosen: Sequence[Task], arrays: Any, spec: Any, *, is_train: bool) -> Sampler:
    data = options.data
    augment = _augmentation(options.plug_in("augment", data.augment), is_train) if data.augment else None
    sampler = options.plug_in("sampler", data.sampler)
    prob = data.train_prob if is_train else data.val_prob
    module = sampler.module
    grown = module.get_spec(*spec, **volumes.accepted(module.get_spec, tasks=chosen))
    filled_in = volumes.accepted(module.Sampler, tasks=chosen)
    made: Sampler = sampler.create(arrays, grown, is_train, augment, prob, **filled_in)
    if not callable(made):
        raise InputError(sampler.where, "a Sampler that cannot be called", "__call__(rng), which gives a sample")
    return made


def _augmentation(plug_in: PlugIn, is_train: bool) -> Any:
    made = plug_in.create(is_train)
    if not callable(getattr(made, "prepare", None)):
        got = f"a {type(made).__name__} from get_augmentation"
        raise InputError(plug_in.where, got, "an augmentation, whose prepare(spec, rng) gives (spec, apply)")
    return made


def create_modifier(options: TrainOptions) -> Modifier | None:
    """The batch modifier of a run, if it has one."""
    if not options.data.modifier:
        return None
    plug_in = options.plug_in("modifier", options.data.modifier)
    made: Modifier = plug_in.create()
    if not callable(made):
        raise InputError(plug_in.where, "a Modifier that cannot be called", "__call__(batch, rng)")
    return made
