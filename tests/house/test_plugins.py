"""Every plug-in module that comes with deepem offers what its folder promises."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from deepem.cli import plugins

ROOT = Path(__file__).resolve().parents[2]
PROMISES = {
    "dataset": ("deepem/data/dataset", ("load_data", "data_info")),
    "sampler": ("deepem/data/sampler", ("Sampler", "get_spec")),
    "augment": ("deepem/data/augment", ("get_augmentation",)),
    "modifier": ("deepem/data/modifier", ("Modifier",)),
    "model": ("deepem/models", ("create_model",)),
    "backbone": ("deepem/models/backbones", ("create_backbone",)),
}
POSITIONAL = {
    "load_data": ["data_dir", "data_ids"],
    "get_items": ["data_dir", "data_ids"],
    "Sampler": ["data", "spec", "is_train", "aug", "prob"],
    "get_spec": ["in_spec", "out_spec"],
    "get_augmentation": ["is_train"],
    "Modifier": [],
    "create_model": [],
    "create_backbone": [],
}
INSTEAD = {"dataset": "get_items"}
HELPERS = {"deepem.models.layers": "what networks of others import", "deepem.models.entry": "what create_model shares"}
FILLED_IN = {"class_keys", "labels", "in_spec", "out_spec", "cropsz", "tasks", "create_backbone", "in_channels"}


def plug_ins() -> list[tuple[str, str]]:
    """(kind, dotted name): the files of the folder, for models without the networks in sub-packages."""
    found = []
    for kind, (folder, _) in PROMISES.items():
        for path in sorted((ROOT / folder).glob("*.py" if kind in ("model", "backbone") else "**/*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not path.name.startswith("_") and name not in HELPERS:
                found.append((kind, name))
    return found


def broken_promises(kind: str, module: ModuleType | SimpleNamespace) -> list[str]:
    """What a module of a kind lacks or offers in another form."""
    names = PROMISES[kind][1]
    instead = INSTEAD.get(kind, "")
    names = [instead if n == names[0] and hasattr(module, instead) and not hasattr(module, n) else n for n in names]
    wrong = [f"no {name}" for name in names if not hasattr(module, name)]
    if not (module.__doc__ or "").strip():
        wrong.append("no docstring")
    for name in names:
        if not callable(function := getattr(module, name, None)):
            continue
        parameters = inspect.signature(function).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if positional != POSITIONAL[name]:
            wrong.append(f"{name} takes {positional}, wants {POSITIONAL[name]}")
        for p in parameters:
            if p.kind is p.KEYWORD_ONLY and p.name not in FILLED_IN:
                wrong += [f"{name}: flag {p.name} without a type"] if p.annotation is p.empty else []
                wrong += [f"{name}: flag {p.name} without a default"] if p.default is p.empty else []
    return wrong


def test_there_is_one_of_every_kind():
    assert {kind for kind, _ in plug_ins()} == set(PROMISES) == set(plugins.KINDS)


@pytest.mark.parametrize(("kind", "name"), plug_ins())
def test_a_plug_in_offers_what_its_folder_promises(kind, name):
    assert broken_promises(kind, importlib.import_module(name)) == []


@pytest.mark.parametrize("kind", PROMISES)
def test_errors_list_every_plug_in(kind):
    package = PROMISES[kind][0].replace("/", ".")
    there = {name.removeprefix(f"{package}.") for other, name in plug_ins() if other == kind}
    assert set(plugins.siblings(kind)) == there


def test_a_broken_promise_is_found():
    def load_data(data_dir, data_ids=None, *, class_keys, labels, glia_mask: bool = False): ...

    good = SimpleNamespace(load_data=load_data, data_info={}, __doc__="A dataset.")
    assert broken_promises("dataset", good) == []
    assert broken_promises("dataset", SimpleNamespace(load_data=load_data, __doc__="A.")) == ["no data_info"]
    assert broken_promises("augment", SimpleNamespace(__doc__="")) == ["no get_augmentation", "no docstring"]

    def get_augmentation(train, *, blur, skip=0.3, warp: bool): ...

    assert broken_promises("augment", SimpleNamespace(get_augmentation=get_augmentation, __doc__="A.")) == [
        "get_augmentation takes ['train'], wants ['is_train']",
        "get_augmentation: flag blur without a type",
        "get_augmentation: flag blur without a default",
        "get_augmentation: flag skip without a type",
        "get_augmentation: flag warp without a default",
    ]
