"""Loads plug-in modules by short name, dotted path or file path.

======== ========================= ==================
kind     short names live in       entry function
======== ========================= ==================
dataset  deepem.data.dataset       load_data
sampler  deepem.data.sampler       Sampler (get_spec)
augment  deepem.data.augment       get_augmentation
modifier deepem.data.modifier      Modifier
model    deepem.models             create_model
backbone deepem.models.backbones   create_backbone
======== ========================= ==================
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem.cli.migration import MODULES
from deepem.utils import byfile
from deepem.utils.errors import InputError, unreadable
from deepem.utils.exit_codes import no_exit

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: the flag that names it, the package of its short names, and what a module must define.

    Attributes:
        flag: The flag that names plug-ins of this kind.
        package: The package that short names are looked up in.
        offers: Required name -> its signature; the first is the entry function.
        instead: A function that a module may define instead of the entry function.
    """

    flag: str
    package: str
    offers: Mapping[str, str]
    instead: str | None = None

    @property
    def entry(self) -> str:
        """The function whose keyword-only parameters are the plug-in's flags."""
        return next(iter(self.offers))


KINDS: dict[str, Kind] = {
    "dataset": Kind(
        "--data",
        "deepem.data.dataset",
        {
            "load_data": "load_data(data_dir, data_ids=None, *, class_keys, labels)",
            "data_info": "data_info, a dict or list that names the ids",
        },
        instead="get_items",
    ),
    "sampler": Kind(
        "--sampler",
        "deepem.data.sampler",
        {"Sampler": "Sampler(data, spec, is_train, aug, prob)", "get_spec": "get_spec(in_spec, out_spec)"},
    ),
    "augment": Kind("--augment", "deepem.data.augment", {"get_augmentation": "get_augmentation(is_train, *, ...)"}),
    "modifier": Kind("--modifier", "deepem.data.modifier", {"Modifier": "Modifier()"}),
    "model": Kind("--model", "deepem.models", {"create_model": "create_model(*, in_spec, out_spec, ...)"}),
    "backbone": Kind(
        "--backbone", "deepem.models.backbones", {"create_backbone": "create_backbone(*, in_channels, ...)"}
    ),
}

_PUBLIC_SAMPLER_WORDS = re.compile(
    r"(aff|affinity|long|bdr|boundary|syn|synapse|psd|mit|mito|mitochondria|mye|myelin|fld|fold|blv|vessel|blood|glia"
    r"|soma|multi|task|default|sampler|flyem|cremi|snemi3d|pinky|basil|kasthuri11|minnie|zfish|[abc]|v?\d+)"
)


@dataclass(frozen=True)
class PlugIn:
    """A loaded plug-in with the values of its flags.

    Attributes:
        kind: One of KINDS.
        word: Its name as given by the user.
        module: The module.
        flags: The keyword arguments of its entry function.
    """

    kind: str
    word: str
    module: ModuleType
    flags: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The plug-in's name in errors."""
        return f"{KINDS[self.kind].flag} {self.word}"

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Wrap calls into the plug-in: a file that it cannot read is reported as bad input, with the module."""
        with no_exit(self.where):
            try:
                yield
            except OSError as error:
                raise unreadable(self.where, error) from error

    def create(self, *arguments: Any, **filled_in: Any) -> Any:
        """Call its entry function with its flags."""
        entry = entry_of(self.kind, self.module)
        with self.calling():
            return entry(*arguments, **filled_in, **self.flags)


def load(kind: str, name: str) -> ModuleType:
    """Import the plug-in module of a kind by its short name, dotted path or file path.

    Raises:
        InputError: there is no such module (the error lists the others), the module lacks a required function (the
            error shows its signature), or it could not read a file. Any other exception in the module keeps its
            traceback.
    """
    row = KINDS[kind]
    target = locate(kind, name)
    if target is None:
        raise InputError(f"{row.flag} {name}", "no such module", f"one of {', '.join(siblings(kind))}, or a file")
    try:
        with no_exit(f"{row.flag} {name}"):
            module = importlib.import_module(target)
    except OSError as error:
        raise InputError(f"{row.flag} {name}", error, "a module that can be read") from error
    except ModuleNotFoundError as error:
        if (instead := MODULES.get((error.name or "").split(".")[0])) is None:
            raise
        wants = f"{instead}; `deepem help migrate` lists what took whose place"
        raise InputError(f"{row.flag} {name}", f"an import of {error.name}, of the public DeepEM", wants) from error
    for attribute, signature in row.offers.items():
        if not hasattr(module, attribute) and not (attribute == row.entry and _offers_instead(row, module)):
            raise InputError(f"{row.flag} {name}", f"a module without {attribute}", signature)
    if not callable(entry_of(kind, module)):
        raise InputError(f"{row.flag} {name}", f"{row.entry} that cannot be called", row.offers[row.entry])
    return module


def entry_of(kind: str, module: ModuleType) -> Any:
    """Return the entry function of a plug-in."""
    row = KINDS[kind]
    name = row.instead if row.instead and _offers_instead(row, module) else row.entry
    return getattr(module, name)


def _offers_instead(row: Kind, module: ModuleType) -> bool:
    return row.instead is not None and not hasattr(module, row.entry) and hasattr(module, row.instead)


def require_own(kind: str, word: str | None, where: object) -> None:
    """Refuse to run code that the user did not name: of the modules that a file names, only deepem's are imported.

    Args:
        kind: One of KINDS.
        word: The module that the file names.
        where: The file to name in errors.

    Raises:
        InputError: the module is not one of deepem's, so the user has to name it.
    """
    target = None if word is None else locate(kind, word)
    if word is not None and (target is None or not target.startswith(f"{KINDS[kind].package}.")):
        flag = KINDS[kind].flag
        raise InputError(
            flag,
            f"nothing, and {where} names {word}, which is not one of deepem's",
            f"the module named again: {flag} {word}, or deepem.load(path, {kind}=...)",
        )


def locate(kind: str, name: str) -> str | None:
    """Return a plug-in's import name, or None if there is no such module. Imports at most its parent packages."""
    package = KINDS[kind].package
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a dotted path may start at the working directory
    path = as_file(name)
    if path is not None:
        if path.is_file():
            known = _inside(path)
            return known or byfile.import_name(path)
        public = re.search(rf"{package.replace('.', '/')}/(.+?)(\.py)?$", path.as_posix())
        name = public.group(1).replace("/", ".") if public else ""
    importable = name.replace("-", "_")  # some module names of the public DeepEM have dashes
    for candidate in (f"{package}.{name}", name, f"{package}.{importable}", importable):
        if name and _exists(candidate):
            return candidate
    short = name.removeprefix(f"{package}.")
    words = [word for word in re.split(r"[._]", short) if word]
    if kind == "sampler" and words and all(_PUBLIC_SAMPLER_WORDS.fullmatch(word) for word in words):
        return f"{package}.basic"  # the basic sampler covers all combinations of the public DeepEM's samplers
    return None


def as_file(name: str) -> Path | None:
    """Return a plug-in's name as a path, whether or not the file exists; None if it is a dotted name."""
    return Path(name).expanduser() if name.endswith(".py") or os.sep in name else None


def _inside(path: Path) -> str | None:
    """Return the dotted name of a file in this package, so that it is not imported twice under two names."""
    inside = path.resolve().is_relative_to(ROOT)
    return ".".join(path.resolve().relative_to(ROOT.parent).with_suffix("").parts) if inside else None


def _exists(dotted: str) -> bool:
    """Whether a dotted path names a module; a package must have an __init__ to count."""
    if not all(dotted.split(".")):  # importlib takes names such as "." for relative
        return False
    try:
        spec = importlib.util.find_spec(dotted)
    except ModuleNotFoundError:
        return False
    return spec is not None and (spec.submodule_search_locations is None or bool(spec.origin))


def short_name(name: str) -> str:
    """Return the last part of a short name, dotted path or file path."""
    return re.split(r"[./]", name.removesuffix(".py"))[-1]


def siblings(kind: str) -> list[str]:
    """Return the short names of a kind's modules that come with deepem."""
    folder = ROOT.joinpath(*KINDS[kind].package.split(".")[1:])
    names = "|".join(filter(None, (KINDS[kind].entry, KINDS[kind].instead)))
    entry = re.compile(rf"^(def|class) ({names})\b|^({names}) =|import .*\b({names})\b", re.M)
    return [
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in sorted(folder.rglob("*.py"))
        if entry.search(path.read_text(encoding="utf-8"))
    ]


def named(kind: str, word: str, values: Mapping[str, Any], *, missing: bool = False) -> PlugIn:
    """Load a plug-in, and pass it the values of those flags that it declares.

    Args:
        kind: One of KINDS.
        word: Its name.
        values: Values of flags, by name.
        missing: Whether the values come from an older run, which may lack newer flags. A missing flag gets its value in
            the module's ``formerly``, else its default.
    """
    from deepem.cli import signatures

    module, flags = load(kind, word), {}
    for flag in signatures.flags(kind, module):
        older = {flag.name: formerly(module, flag.name, flag.default)} if missing else {}
        flags[flag.name] = {**older, **values}[flag.name]
    return PlugIn(kind, word, module, flags)


def formerly(module: ModuleType, name: str, default: Any) -> Any:
    """Return a flag's value for runs older than the flag: its value in the module's ``formerly``, else its default."""
    return getattr(module, "formerly", {}).get(name, default)


def model_with_backbone(model: PlugIn, backbone: PlugIn | None) -> PlugIn:
    """Pass a backbone to a model: the model's entry function gets it as `create_backbone`.

    Raises:
        InputError: the model takes no backbone.
    """
    if backbone is None:
        return model
    if "create_backbone" not in inspect.signature(model.module.create_model).parameters:
        raise InputError(backbone.where, f"a backbone for {model.where}", "a model that takes one, such as fpn")
    return replace(model, flags={**model.flags, "create_backbone": backbone.create})
