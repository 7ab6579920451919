"""Builds the samplers of a run from its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from deepem import tasks
from deepem.build import selection, volumes
from deepem.build.intensity import GreyValues, with_ranges
from deepem.build.network import PatchSizes, specs
from deepem.cli.plugins import PlugIn
from deepem.cli.training import TrainOptions
from deepem.data import cache
from deepem.data.items import ItemSampler
from deepem.protocols import Modifier, Sampler
from deepem.tasks import Task
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Vec3
from deepem.utils.intensity import Percentiles


@dataclass(frozen=True)
class Samplers:
    """The samplers of a run, and what they draw from.

    Attributes:
        train: Draws training samples.
        val: Draws evaluation samples, or None if there are no evaluation volumes.
        train_ids: The training ids, as written on the command line.
        val_ids: The evaluation ids.
        channels: Number of image channels.
        grey_values: How grey values of images are scaled.
    """

    train: Sampler
    val: Sampler | None
    train_ids: list[str]
    val_ids: list[str]
    channels: int
    grey_values: GreyValues = field(default_factory=GreyValues)


def create_samplers(options: TrainOptions, chosen: Sequence[Task], sizes: PatchSizes) -> Samplers:
    """Load the volumes of a run and create its samplers.

    Raises:
        InputError: ids, files, labels, probabilities or sizes cannot be used.
    """
    data = options.data
    sets = [selection.DataSet(options.plug_in("dataset", word), Path(data.data_dir)) for word in data.data or ()]
    train, val = selection.choose_ids(sets, data.train_ids, data.val_ids)
    for flag, given, refs in (("train_prob", data.train_prob, train), ("val_prob", data.val_prob, val)):
        if given and len(given) != len(refs):
            ids = ", ".join(ref.word for ref in refs)
            raise InputError(f"--{flag}", f"{len(given)} numbers", f"{len(refs)}, one for each of {ids}")
    if any(gives_items(one) for one in sets):
        if data.intensity != ["none"]:
            raise InputError("--intensity", " ".join(map(str, data.intensity)), "none: items are bytes, or in [0, 1]")
        return _of_items(options, chosen, sizes, sets, train, val)
    loaded = volumes.load([*train, *val], Path(data.data_dir), chosen, lazy=data.lazy)
    volumes.require_labels(train, loaded, chosen)
    kept = volumes.without_overlap(train, val, loaded, explicit=bool(data.val_ids))
    if not kept:
        warn("no evaluation: no volume is left for --val_ids")
    loaded, grey_values = with_ranges(
        data.intensity, Percentiles(*data.percentiles), data.percentiles_of, {"train": train, "val": kept}, loaded
    )
    labels = tasks.labels(chosen)
    arrays = {
        phase: volumes.prepared(refs, loaded, labels, phase, chosen)
        for phase, refs in (("train", train), ("val", kept))
    }
    cache.share(arrays["train"], arrays["val"], data.cache_mb << 20, options.speed.num_workers)
    channels = _channels({**arrays["train"], **arrays["val"]})
    _require_factor({**arrays["train"], **arrays["val"]}, sizes.factor, options.data.modifier)
    spec = specs(chosen, channels, sizes)
    return Samplers(
        train=_sampler(options, chosen, arrays["train"], spec, is_train=True),
        val=_sampler(options, chosen, arrays["val"], spec, is_train=False) if arrays["val"] else None,
        train_ids=[ref.word for ref in train],
        val_ids=[ref.word for ref in kept],
        channels=channels,
        grey_values=grey_values,
    )


def _channels(arrays: Mapping[str, Any]) -> int:
    found = {name: leaf["img"].shape[0] for name, volume in arrays.items() for leaf in volumes.leaves(volume)}
    if len(set(found.values())) > 1:
        raise InputError("--data", f"images of different channels ({found})", "one number of channels")
    return int(next(iter(found.values())))


def _require_factor(arrays: Mapping[str, Any], factor: Vec3, modifier: str | None) -> None:
    """Refuse volumes unless their labels are finer than the image by the same factor as the network's output."""
    for name, volume in arrays.items():
        for leaf in volumes.leaves(volume):
            found = leaf.get("label_factor", (1, 1, 1))
            if found != factor:
                got = f"labels of {name} with label_factor {found}"
                raise InputError("--data", got, f"{factor}, the factor of the network's output")
    if modifier and factor != (1, 1, 1):
        raise InputError("--modifier", f"{modifier}, for an output that is finer than the input", "none")


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


def gives_items(dataset: selection.DataSet) -> bool:
    """Whether a dataset module returns (image, target) items instead of volumes."""
    return not hasattr(dataset.module, "load_data") and hasattr(dataset.module, "get_items")


def _of_items(
    options: TrainOptions,
    chosen: Sequence[Task],
    sizes: PatchSizes,
    sets: Sequence[selection.DataSet],
    train: Sequence[selection.Ref],
    val: Sequence[selection.Ref],
) -> Samplers:
    """Create the samplers for a module that returns items."""
    if len(sets) > 1:
        raise InputError("--data", f"{len(sets)} modules, one of which gives items", "that one alone")
    if lacking := [task for task in chosen if "seg" not in task.sources]:
        raise InputError(f"--{lacking[0].flag}", f"items of {sets[0].word}", "a task that instances are a label of")
    both = {ref.word for ref in train} & {ref.word for ref in val}
    if both and options.data.val_ids:
        warn(f"--val_ids: {', '.join(sorted(both))} are trained on too")
    kept = list(val) if options.data.val_ids else [ref for ref in val if ref.word not in both]
    if not kept:
        warn("no evaluation: no volume is left for --val_ids")
    classes = max(task.channels for task in chosen if task.settable) if any(t.settable for t in chosen) else 1
    made: dict[bool, ItemSampler] = {}
    for is_train, refs in ((True, train), (False, kept)):
        if refs:
            items = sets[0].plug_in.create(Path(options.data.data_dir), [ref.id for ref in refs])
            make = partial(_sampler_of, options, chosen, sizes, is_train)
            made[is_train] = ItemSampler(items, make, sets[0].word, classes, sizes.input)
    return Samplers(
        train=made[True],
        val=made.get(False),
        train_ids=[ref.word for ref in train],
        val_ids=[ref.word for ref in kept],
        channels=made[True].channels,
    )


def _sampler_of(options: TrainOptions, chosen: Sequence[Task], sizes: PatchSizes, is_train: bool, arrays: Any) -> Any:
    """Create the sampler for volumes that have been checked."""
    spec = specs(chosen, _channels(arrays), sizes)
    return _sampler(options, chosen, arrays, spec, is_train=is_train)


def _augmentation(plug_in: PlugIn, is_train: bool) -> Any:
    made = plug_in.create(is_train)
    if not callable(getattr(made, "prepare", None)):
        got = f"a {type(made).__name__} from get_augmentation"
        raise InputError(plug_in.where, got, "an augmentation, whose prepare(spec, rng) gives (spec, apply)")
    return made


def create_modifier(options: TrainOptions) -> Modifier | None:
    """Create the batch modifier of a run, if it has one."""
    if not options.data.modifier:
        return None
    plug_in = options.plug_in("modifier", options.data.modifier)
    made: Modifier = plug_in.create()
    if not callable(made):
        raise InputError(plug_in.where, "a Modifier that cannot be called", "__call__(batch, rng)")
    return made
