"""Selects the volumes for training and evaluation, from the ids on the command line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem.cli.plugins import KINDS, PlugIn, as_file, short_name
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class DataSet:
    """A dataset module and the ids that it knows."""

    plug_in: PlugIn
    data_dir: Path = Path()

    @property
    def word(self) -> str:
        """The module's name as given on the command line."""
        return self.plug_in.word

    @property
    def module(self) -> ModuleType:
        """The module."""
        return self.plug_in.module

    @property
    def ids(self) -> list[Any]:
        """The ids that the module knows, as the module writes them: text, or numbers.

        They are the ids in its `data_info`, or, if the module has a function `ids_in`, the ids in the data folder.
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
        """Return the module's default ids for 'train' or 'val'; empty if the module has no splits."""
        return list(getattr(self.module, "splits", {}).get(phase, ()))

    @property
    def path_names(self) -> tuple[str, ...]:
        """The names along the module's path. The last of them, joined by dots, qualify ids that modules share."""
        file = as_file(self.word)
        there = Path(os.path.abspath(file if file is not None and file.is_file() else str(self.module.__file__)))
        folders = there.parent.parts[:-1] if there.stem == "__init__" else there.parent.parts
        return (*folders[1:], short_name(self.word))

    def is_called(self, name: str) -> bool:
        """Whether a qualifier in front of an id names this module: the last parts of its path, with dots or slashes."""
        dotted = name.removesuffix(".py").replace("/", ".").strip(".")
        return bool(dotted) and ("." + ".".join(self.path_names)).endswith("." + dotted)


@dataclass(frozen=True)
class Ref:
    """One id of one dataset, and how it is written on the command line."""

    dataset: DataSet
    id: Any
    word: str


def choose_ids(
    datasets: Sequence[DataSet], train_ids: Sequence[str] | None, val_ids: Sequence[str] | None
) -> tuple[list[Ref], list[Ref]]:
    """Return the volumes to train and to evaluate on: those on the command line, or else the modules' defaults.

    Defaults never train and evaluate on the same voxels. A module's ``val`` split is the default only if all volumes
    trained on come from its ``train`` split. A module without splits evaluates on its last id, if it has several.

    Raises:
        InputError: an id is unknown (all ids are listed) or belongs to two modules, or there is nothing to train on.
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
    """Return the volume that an id on the command line means.

    Raises:
        InputError: the id is unknown, or two modules have it.
    """
    return _find(_every(datasets), word, flag)


def _require_distinct(datasets: Sequence[DataSet]) -> None:
    """Refuse a module that is given twice, in whichever spelling, and a module that does not name its ids."""
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
    """Refuse ids that are neither text nor numbers, and splits that are not lists of ids of the module."""
    wants = "splits = {'train': [...], 'val': [...]}, lists of ids"
    if not isinstance(splits, Mapping):
        raise InputError(where, f"splits of type {type(splits).__name__}", wants)
    for phase, ids in splits.items():
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise InputError(where, f"splits[{phase!r}] of type {type(ids).__name__}", wants)
    split = [id for ids in splits.values() for id in ids]
    for id in (*info, *split):
        if not isinstance(id, (str, int, float)):
            raise InputError(where, f"an id of type {type(id).__name__}", "ids that are text")
    known = list(map(str, info))
    if unknown := [id for id in split if str(id) not in known]:
        raise InputError(where, f"splits with the id {unknown[0]}", f"ids of its data_info: {', '.join(known)}")


def _refuse_twice(flag: str, words: Sequence[str] | None, refs: Sequence[Ref]) -> None:
    """Refuse an id that is given twice, in whichever spelling."""
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
    """Return all ids, each as it is if it is unambiguous, else qualified by its module's name."""
    known = [(d, id) for d in datasets for id in dict.fromkeys([*d.ids, *d.split("train"), *d.split("val")])]
    names = _names(datasets)
    times = Counter(str(id) for _, id in known) + Counter(f"{names[d.word]}/{id}" for d, id in known)
    return [Ref(d, id, str(id) if times[str(id)] == 1 else f"{names[d.word]}/{id}") for d, id in known]


def _names(datasets: Sequence[DataSet]) -> dict[str, str]:
    """Return the qualifier of each module: as many of the last parts of its path as distinguish it from the others."""
    paths = {dataset.word: dataset.path_names for dataset in datasets}
    names = {}
    for word, parts in paths.items():
        others = [other for key, other in paths.items() if key != word]
        lengths = (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others))
        names[word] = ".".join(parts[-next(lengths, len(parts)) :])
    return names


def _listed(refs: Iterable[Ref]) -> list[Ref]:
    """Keep the ids that users may ask for."""
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
