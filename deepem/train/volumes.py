"""From the ids of the command line to the volumes that are trained and evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem import tasks
from deepem.data.volume import compact
from deepem.utils import modules
from deepem.utils.argv import plug_in
from deepem.utils.errors import InputError, warn

Arrays = dict[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A dataset module as named on the command line, with the values of its flags."""

    word: str
    module: ModuleType
    flags: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The last part of the module's name, which qualifies ids: ``name/id``."""
        return modules.short_name(self.word)

    @property
    def ids(self) -> list[str]:
        """The ids that the module knows."""
        return list(self.module.data_info)

    def split(self, phase: str) -> list[str]:
        """The module's default ids for 'train' or 'val'; none where it has no splits."""
        return list(getattr(self.module, "splits", {}).get(phase, ()))


@dataclass(frozen=True)
class Ref:
    """One id of one dataset, and how it is written."""

    dataset: DataSet
    id: str
    word: str


def choose_ids(
    datasets: Sequence[DataSet], train_ids: Sequence[str] | None, val_ids: Sequence[str] | None
) -> tuple[list[Ref], list[Ref]]:
    """The volumes to train and to evaluate on, those of the command line or else the modules' defaults.

    Defaults never train and evaluate on the same voxels: a module's ``val`` split is used by default only where its
    ``train`` split is what is trained on. A module without splits evaluates on its last id where it has several.

    Raises:
        InputError: an unknown id (all are listed), one that two modules have, or none to train on.
    """
    train: list[Ref] = []
    val: list[Ref] = []
    if train_ids:
        train = [_find(datasets, word, "--train_ids") for word in train_ids]
    for dataset in datasets:
        ids = [_ref(datasets, dataset, i) for i in dataset.split("train") or _all_but_last(dataset)]
        train += [] if train_ids else ids
        known = {(ref.dataset.word, ref.id) for ref in ids}
        mine = [ref for ref in train if ref.dataset is dataset]
        if not val_ids and mine and all((ref.dataset.word, ref.id) in known for ref in mine):
            val += [_ref(datasets, dataset, i) for i in dataset.split("val") or _last(dataset)]
    if val_ids:
        val = [_find(datasets, word, "--val_ids") for word in val_ids]
    for flag, words in (("--train_ids", train_ids), ("--val_ids", val_ids)):
        if twice := [word for word in words or () if list(words or ()).count(word) > 1]:
            raise InputError(flag, f"{twice[0]} twice", "each id once")
    if not train:
        raise InputError("--train_ids", "none", f"ids of {', '.join(_every(datasets))}")
    return train, val


def _all_but_last(dataset: DataSet) -> list[str]:
    return dataset.ids[:-1] if len(dataset.ids) > 1 else dataset.ids


def _last(dataset: DataSet) -> list[str]:
    return [] if dataset.split("train") else dataset.ids[-1:]


def _ref(datasets: Sequence[DataSet], dataset: DataSet, id: str) -> Ref:
    shared = sum(id in other.module.data_info for other in datasets) > 1
    return Ref(dataset, id, f"{dataset.name}/{id}" if shared else id)


def _every(datasets: Sequence[DataSet]) -> list[str]:
    return [_ref(datasets, dataset, id).word for dataset in datasets for id in dataset.ids]


def _find(datasets: Sequence[DataSet], word: str, flag: str) -> Ref:
    name, _, id = word.rpartition("/")
    having = [d for d in datasets if (not name or d.name == name) and id in d.module.data_info]
    having = having or [d for d in datasets if word in d.module.data_info]
    if not having:
        raise InputError(flag, word, f"one of {', '.join(_every(datasets))}")
    if len(having) > 1:
        raise InputError(flag, f"{word}, which several modules have", " or ".join(f"{d.name}/{id}" for d in having))
    return _ref(datasets, having[0], id if id in having[0].module.data_info else word)


def load(refs: Sequence[Ref], data_dir: Path, chosen: Sequence[tasks.Task]) -> dict[str, Arrays]:
    """Arrays by id as written, each volume read once.

    Raises:
        InputError: a file that a module cannot read, or an id that it does not give.
    """
    loaded: dict[str, Arrays] = {}
    for dataset in dict.fromkeys(ref.dataset.word for ref in refs):
        mine = {ref.id: ref for ref in refs if ref.dataset.word == dataset}
        one = next(iter(mine.values())).dataset
        keywords = modules.accepted(
            one.module.load_data,
            class_keys=tuple(task.flag for task in chosen),
            labels=tasks.labels(chosen),
            **one.flags,
        )
        with plug_in("--data", one.word):
            volumes = one.module.load_data(data_dir, list(mine), **keywords)
        if lacking := [id for id in mine if id not in volumes]:
            raise InputError(f"--data {one.word}", f"no volume for id {lacking[0]} from load_data", "one per id")
        loaded |= {ref.word: volumes[id] for id, ref in mine.items()}
    return loaded


def require_labels(refs: Sequence[Ref], loaded: Mapping[str, Arrays], chosen: Sequence[tasks.Task]) -> None:
    """Refuse a task that no volume of the training set has a label for."""
    for task in chosen:
        if not any(source in leaf for ref in refs for leaf in leaves(loaded[ref.word]) for source in task.sources):
            names = list(dict.fromkeys(ref.dataset.word for ref in refs))
            hints = [getattr(ref.dataset.module, "hints", {}).get(task.source) for ref in refs]
            wants = next((hint for hint in hints if hint), f"a dataset with the label {' or '.join(task.sources)}")
            raise InputError(f"--{task.flag}", f"no label for {task.name} in {', '.join(names)}", wants)


def leaves(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The volumes of a superset, or the one volume itself."""
    if "img" not in volume and volume and all(isinstance(part, Mapping) for part in volume.values()):
        return [leaf for part in volume.values() for leaf in leaves(part)]
    return [volume]


def prepared(refs: Sequence[Ref], loaded: Mapping[str, Arrays], labels: Sequence[str], phase: str) -> dict[str, Arrays]:
    """Checked and compact volumes by id for a phase, 'train' or 'val'."""
    return {ref.word: compact(f"{ref.dataset.word} {ref.id}", loaded[ref.word], labels, phase) for ref in refs}


def without_overlap(
    train: Sequence[Ref], val: Sequence[Ref], loaded: Mapping[str, Arrays], *, explicit: bool
) -> list[Ref]:
    """The evaluation ids less those whose voxels are trained on; if they were asked for, a warning and all of them."""

    def apart(ref: Ref) -> bool:
        return all({"msk_train", "msk_val"} <= set(leaf) for leaf in leaves(loaded[ref.word]))

    both = [ref for ref in val if any(ref.word == other.word for other in train) and not apart(ref)]
    if both and explicit:
        warn(f"--val_ids: {', '.join(ref.word for ref in both)} are trained on too")
        return list(val)
    return [ref for ref in val if ref not in both]
