"""Loads the selected volumes, and checks that they hold what the tasks need."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem import tasks
from deepem.build.selection import Ref
from deepem.data.volume import GreyValueError, compact
from deepem.utils.errors import InputError, warn

Arrays = dict[str, Any]


def load(refs: Sequence[Ref], data_dir: Path, chosen: Sequence[tasks.Task], *, lazy: bool = False) -> dict[str, Arrays]:
    """Return arrays by id as written; each volume is read once. With `lazy`, modules that can leave arrays on disk.

    Raises:
        InputError: a module cannot read a file, or does not return an id.
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
    """Take the volumes of some ids from a module's result. Each is accessed once, since access may read the file."""
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
    """Refuse a task if no training volume has a label for it."""
    for task in chosen:
        if not any(source in leaf for ref in refs for leaf in leaves(loaded[ref.word]) for source in task.sources):
            names = list(dict.fromkeys(ref.dataset.word for ref in refs))
            hints = [getattr(ref.dataset.module, "hints", {}).get(task.source) for ref in refs]
            wants = next((hint for hint in hints if hint), f"a dataset with the label {' or '.join(task.sources)}")
            raise InputError(f"--{task.flag}", f"no label for {task.name} in {', '.join(names)}", wants)


def leaves(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the members of a superset, or the single volume itself."""
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
    """Return checked and compact volumes by id for a phase, 'train' or 'val'.

    Raises:
        InputError: an array cannot be used. For unusual grey values, the error says which flag to add.
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
    """Drop evaluation ids whose voxels are trained on. If the user asked for them, keep all ids and warn instead."""

    def apart(ref: Ref) -> bool:
        return all({"msk_train", "msk_val"} <= set(leaf) for leaf in leaves(loaded[ref.word]))

    both = [ref for ref in val if any(ref.word == other.word for other in train) and not apart(ref)]
    if both and explicit:
        warn(f"--val_ids: {', '.join(ref.word for ref in both)} are trained on too")
        return list(val)
    return [ref for ref in val if ref not in both]


def accepted(function: Callable[..., object], **candidates: object) -> dict[str, object]:
    """Return the keyword arguments that a function accepts by name, or all of them if it takes ``**kwargs``."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return candidates
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {name: value for name, value in candidates.items() if name in names}
