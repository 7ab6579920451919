"""From the ids of the command line to the volumes that are trained and evaluated on."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem import tasks
from deepem.cli.plugins import KINDS, PlugIn, as_file, short_name
from deepem.data.volume import GreyValueError, compact
from deepem.utils.errors import InputError, warn

Arrays = dict[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A dataset module and the ids that it knows."""

    plug_in: PlugIn
    data_dir: Path = Path()

    @property
    def word(self) -> str:
        """The module's name as it was given."""
        return self.plug_in.word

    @property
    def module(self) -> ModuleType:
        """The module."""
        return self.plug_in.module

    @property
    def ids(self) -> list[Any]:
        """The ids that the module knows, as it writes them: text, but numbers pass.

        They are those of its `data_info`, or, where it has a function `ids_in`, those that are in the folder.
        """
        return list(dict.fromkeys(self._ids))

    @cached_property
    def _ids(self) -> list[Any]:
        find = getattr(self.module, "ids_in", None)
        if find is None:
            return list(self.module.data_info)
        with self.plug_in.calling():
            return list(find(self.data_dir))

    def split(self, phase: str) -> list[Any]:
        """The module's default ids for 'train' or 'val'; none where it has no splits."""
        return list(getattr(self.module, "splits", {}).get(phase, ()))

    @property
    def path_names(self) -> tuple[str, ...]:
        """The names along the module's path. The last of them, joined by dots, tell its ids from another module's."""
        file = as_file(self.word)
        there = Path(os.path.abspath(file if file is not None and file.is_file() else str(self.module.__file__)))
        folders = there.parent.parts[:-1] if there.stem == "__init__" else there.parent.parts
        return (*folders[1:], short_name(self.word))

    def is_called(self, name: str) -> bool:
        """Whether a name before an id means this module: the last parts of its path, with dots or slashes."""
        dotted = name.removesuffix(".py").replace("/", ".").strip(".")
        return bool(dotted) and ("." + ".".join(self.path_names)).endswith("." + dotted)


@dataclass(frozen=True)
class Ref:
    """One id of one dataset, and how it is written."""

    dataset: DataSet
    id: Any
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
    _require_distinct(datasets)
    refs = {(ref.dataset.word, ref.id): ref for ref in _every(datasets)}
    train = [_find(refs.values(), word, "--train_ids") for word in train_ids or ()]
    val: list[Ref] = []
    for dataset in datasets:
        ids = [refs[dataset.word, i] for i in dataset.split("train") or _all_but_last(dataset)]
        train += [] if train_ids else ids
        mine = [ref for ref in train if ref.dataset is dataset]
        if not val_ids and mine and all(ref in ids for ref in mine):
            val += [refs[dataset.word, i] for i in dataset.split("val") or _last(dataset)]
    val += [_find(refs.values(), word, "--val_ids") for word in val_ids or ()]
    _refuse_twice("--train_ids", train_ids, train)
    _refuse_twice("--val_ids", val_ids, val)
    if not train:
        raise InputError("--train_ids", "none", f"ids of {', '.join(r.word for r in _listed(refs.values()))}")
    return train, val


def find(datasets: Sequence[DataSet], word: str, flag: str) -> Ref:
    """The volume that an id of the command line means.

    Raises:
        InputError: an unknown id, or one that two modules have.
    """
    return _find(_every(datasets), word, flag)


def _require_distinct(datasets: Sequence[DataSet]) -> None:
    """Refuse a module that is named twice, in whichever way, and one that does not name its ids."""
    words: dict[str, str] = {}
    for dataset in datasets:
        info, file = dataset.module.data_info, os.path.realpath(str(dataset.module.__file__))
        if isinstance(info, str) or not isinstance(info, Iterable):
            got = f"data_info of type {type(info).__name__}"
            raise InputError(f"--data {dataset.word}", got, KINDS["dataset"].offers["data_info"])
        _require_ids(f"--data {dataset.word}", info, getattr(dataset.module, "splits", {}))
        if file in words:
            raise InputError("--data", f"{words[file]} and {dataset.word}, which are one module", "each module once")
        words[file] = dataset.word


def _require_ids(where: str, info: Iterable[Any], splits: Any) -> None:
    """Refuse ids that are neither text nor numbers, and splits that are no lists of them."""
    wants = "splits = {'train': [...], 'val': [...]}, lists of ids"
    if not isinstance(splits, Mapping):
        raise InputError(where, f"splits of type {type(splits).__name__}", wants)
    for phase, ids in splits.items():
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise InputError(where, f"splits[{phase!r}] of type {type(ids).__name__}", wants)
    for id in (*info, *(id for ids in splits.values() for id in ids)):
        if not isinstance(id, (str, int, float)):
            raise InputError(where, f"an id of type {type(id).__name__}", "ids that are text")


def _refuse_twice(flag: str, words: Sequence[str] | None, refs: Sequence[Ref]) -> None:
    """Refuse an id that is given twice, in whichever way."""
    first: dict[tuple[str, Any], str] = {}
    for word, ref in zip(words or (), refs, strict=False):
        key = ref.dataset.word, ref.id
        if key in first:
            got = f"{word} twice" if first[key] == word else f"{first[key]} and {word}, which are one id"
            raise InputError(flag, got, "each id once")
        first[key] = word


def _all_but_last(dataset: DataSet) -> list[str]:
    return dataset.ids[:-1] if len(dataset.ids) > 1 else dataset.ids


def _last(dataset: DataSet) -> list[str]:
    return [] if dataset.split("train") else dataset.ids[-1:]


def _every(datasets: Sequence[DataSet]) -> list[Ref]:
    """All ids, each written as it is, or behind its module's name where it would be taken for another."""
    known = [(d, id) for d in datasets for id in dict.fromkeys([*d.ids, *d.split("train"), *d.split("val")])]
    names = _names(datasets)
    times = Counter(str(id) for _, id in known) + Counter(f"{names[d.word]}/{id}" for d, id in known)
    return [Ref(d, id, str(id) if times[str(id)] == 1 else f"{names[d.word]}/{id}") for d, id in known]


def _names(datasets: Sequence[DataSet]) -> dict[str, str]:
    """What ids of each module are qualified by: as many of the last parts of its path as tell it from the others."""
    paths = {dataset.word: dataset.path_names for dataset in datasets}
    names = {}
    for word, parts in paths.items():
        others = [other for key, other in paths.items() if key != word]
        lengths = (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others))
        names[word] = ".".join(parts[-next(lengths, len(parts)) :])
    return names


def _listed(refs: Iterable[Ref]) -> list[Ref]:
    """Those that can be asked for."""
    return [ref for ref in refs if ref.id in ref.dataset.ids]


def _find(refs: Iterable[Ref], word: str, flag: str) -> Ref:
    listed = _listed(refs)
    having = [ref for ref in listed if word == ref.word] or [ref for ref in listed if _means(word, ref)]
    if not having:
        raise InputError(flag, word, f"one of {', '.join(ref.word for ref in listed)}")
    if len(having) > 1:
        raise InputError(flag, f"{word}, which several modules have", " or ".join(ref.word for ref in having))
    return having[0]


def _means(word: str, ref: Ref) -> bool:
    id = str(ref.id)
    return word == id or (word.endswith(f"/{id}") and ref.dataset.is_called(word.removesuffix(f"/{id}")))


def load(refs: Sequence[Ref], data_dir: Path, chosen: Sequence[tasks.Task], *, lazy: bool = False) -> dict[str, Arrays]:
    """Arrays by id as written, each volume read once, or, `lazy`, left on disk by the modules that can.

    Raises:
        InputError: a file that a module cannot read, or an id that it does not give.
    """
    loaded: dict[str, Arrays] = {}
    for dataset in dict.fromkeys(ref.dataset.word for ref in refs):
        mine = {ref.id: ref for ref in refs if ref.dataset.word == dataset}
        one = next(iter(mine.values())).dataset
        keywords = accepted(
            one.module.load_data,
            class_keys=tuple(task.flag for task in chosen),
            labels=tasks.labels(chosen),
            **({"lazy": True} if lazy else {}),
            tasks=tuple(chosen),
            **one.plug_in.flags,
        )
        if lazy and "lazy" not in keywords:
            warn(f"--lazy: the load_data of {one.word} has no parameter lazy; its volumes are read into memory")
        with one.plug_in.calling():
            volumes = _by_id(one.word, one.module.load_data(data_dir, list(mine), **keywords), list(mine))
        loaded |= {ref.word: volumes[id] for id, ref in mine.items()}
    return loaded


def _by_id(word: str, given: object, ids: Sequence[Any]) -> dict[Any, Any]:
    """The volumes of some ids out of what a module gave, each taken once: they may be read only then."""
    wants = "a dict id -> {'img': ..., 'seg': ...}"
    if not isinstance(given, Mapping):
        raise InputError(f"--data {word}", f"{_kind(given)} from load_data", wants)
    if lacking := [id for id in ids if id not in given]:
        raise InputError(f"--data {word}", f"no volume for id {lacking[0]} from load_data", "one per id")
    volumes = {id: given[id] for id in ids}
    for id, volume in volumes.items():
        if not isinstance(volume, Mapping):
            raise InputError(f"--data {word}", f"{_kind(volume)} for id {id} from load_data", wants)
    return volumes


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


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


def prepared(
    refs: Sequence[Ref],
    loaded: Mapping[str, Arrays],
    labels: Sequence[str],
    phase: str,
    rows: Sequence[tasks.Task] = tasks.TASKS,
) -> dict[str, Arrays]:
    """Checked and compact volumes by id for a phase, 'train' or 'val'.

    Raises:
        InputError: an array that cannot be used. Of unusual grey values it says what to add.
    """
    return {ref.word: _prepared(ref, loaded[ref.word], labels, phase, rows) for ref in refs}


def _prepared(ref: Ref, volume: Arrays, labels: Sequence[str], phase: str, rows: Sequence[tasks.Task]) -> Arrays:
    try:
        return compact(f"{ref.dataset.word} {ref.id}", volume, labels, phase, rows)
    except GreyValueError as error:
        from deepem.build.intensity import suggestion

        image = leaves(volume)[0]["img"]
        raise InputError(error.where, error.got, f"{error.wants}, or {suggestion(image)}") from error


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


def accepted(function: Callable[..., object], **candidates: object) -> dict[str, object]:
    """Those of the keyword arguments that a function takes by name, or all of them if it takes ``**kwargs``."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return candidates
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {name: value for name, value in candidates.items() if name in names}
