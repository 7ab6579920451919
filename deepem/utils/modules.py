"""Plug-in modules: found by short name, dotted path or file path, told apart when they fail, asked for their flags.

======== ===================== ==================
kind     short names live in   entry function
======== ===================== ==================
dataset  deepem.data.dataset   load_data
sampler  deepem.data.sampler   Sampler (get_spec)
augment  deepem.data.augment   get_augmentation
modifier deepem.data.modifier  Modifier
model    deepem.models         create_model
======== ===================== ==================
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem.utils import byfile
from deepem.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: the flag that names it, where short names live, and what a module of it must offer."""

    flag: str
    package: str
    offers: Mapping[str, str]

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
    ),
    "sampler": Kind(
        "--sampler",
        "deepem.data.sampler",
        {"Sampler": "Sampler(data, spec, is_train, aug, prob)", "get_spec": "get_spec(in_spec, out_spec)"},
    ),
    "augment": Kind("--augment", "deepem.data.augment", {"get_augmentation": "get_augmentation(is_train, *, ...)"}),
    "modifier": Kind("--modifier", "deepem.data.modifier", {"Modifier": "Modifier()"}),
    "model": Kind("--model", "deepem.models", {"create_model": "create_model(*, in_spec, out_spec, ...)"}),
}

FILLED_IN = frozenset({"class_keys", "labels", "in_spec", "out_spec", "cropsz", "create_backbone", "in_channels"})
"""Keyword parameters that the machinery supplies: no flags."""

_PUBLIC_SAMPLER_WORDS = re.compile(
    r"(aff|affinity|long|bdr|boundary|syn|synapse|psd|mit|mito|mitochondria|mye|myelin|fld|fold|blv|vessel|blood|glia"
    r"|soma|multi|task|default|sampler|flyem|cremi|snemi3d|pinky|basil|kasthuri11|minnie|zfish|[abc]|v?\d+)"
)


@dataclass(frozen=True)
class Flag:
    """A command-line flag that a plug-in takes: a keyword-only parameter of its entry function."""

    name: str
    type: Any
    default: object
    help: str
    file: str


def load(kind: str, name: str) -> ModuleType:
    """The plug-in module of a kind by its short name, dotted path or file path.

    Raises:
        InputError: there is no such module (the siblings are listed), it lacks a function (its signature is given),
            or it could not read a file. Any other exception that the module raises keeps its traceback.
    """
    row = KINDS[kind]
    target = _locate(kind, name)
    if target is None:
        raise InputError(f"{row.flag} {name}", "no such module", f"one of {', '.join(siblings(kind))}, or a file")
    try:
        module = importlib.import_module(target)
    except OSError as error:
        raise InputError(f"{row.flag} {name}", error, "a module that can be read") from error
    for attribute, signature in row.offers.items():
        if not hasattr(module, attribute):
            raise InputError(f"{row.flag} {name}", f"a module without {attribute}", signature)
    return module


def _locate(kind: str, name: str) -> str | None:
    """The import name of a module, or None if there is no such module. Imports at most parent packages."""
    package = KINDS[kind].package
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a dotted path may start in the working directory
    path = as_file(name)
    if path is not None:
        if path.is_file():
            known = _inside(path)
            return known or byfile.import_name(path)
        public = re.search(rf"{package.replace('.', '/')}/(.+?)(\.py)?$", path.as_posix())
        name = public.group(1).replace("/", ".") if public else ""
    for candidate in (f"{package}.{name}", name):
        if name and _exists(candidate):
            return candidate
    short = name.removeprefix(f"{package}.")
    words = [word for word in re.split(r"[._]", short) if word]
    if kind == "sampler" and words and all(_PUBLIC_SAMPLER_WORDS.fullmatch(word) for word in words):
        return f"{package}.basic"  # one sampler serves every combination that the public ones were written for
    return None


def as_file(name: str) -> Path | None:
    """The path that a plug-in's name is, whether or not there is such a file, or None if it is a dotted name."""
    return Path(name).expanduser() if name.endswith(".py") or os.sep in name else None


def _inside(path: Path) -> str | None:
    """The dotted name of a file of this package, so that it is not imported twice under two names."""
    resolved = path.resolve()
    if not resolved.is_relative_to(ROOT):
        return None
    return ".".join(resolved.relative_to(ROOT.parent).with_suffix("").parts)


def _exists(dotted: str) -> bool:
    """Whether a dotted path names a module (a package counts only if it is not a mere folder of plug-ins)."""
    if not all(dotted.split(".")):
        return False  # . and the like: importlib takes them for relative to something
    try:
        spec = importlib.util.find_spec(dotted)
    except ModuleNotFoundError:
        return False
    return spec is not None and (spec.submodule_search_locations is None or bool(spec.origin))


def short_name(name: str) -> str:
    """The last part of a short name, dotted path or file path."""
    return re.split(r"[./]", name.removesuffix(".py"))[-1]


def siblings(kind: str) -> list[str]:
    """Short names of the modules of a kind that come with deepem."""
    folder = ROOT.joinpath(*KINDS[kind].package.split(".")[1:])
    entry = re.compile(
        rf"^(def|class) {KINDS[kind].entry}\b|^{KINDS[kind].entry} =|import .*\b{KINDS[kind].entry}\b", re.M
    )
    return [
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in sorted(folder.rglob("*.py"))
        if entry.search(path.read_text())
    ]


def flags(kind: str, module: ModuleType) -> list[Flag]:
    """The flags of a plug-in: the keyword-only parameters of its entry function that the machinery does not fill in."""
    function = getattr(module, KINDS[kind].entry)
    return list(_flags_of(function, str(module.__file__)))


def flags_unloaded(kind: str, name: str) -> list[Flag]:
    """The flags of a plug-in read from its source, without importing it: --help imports nothing heavy.

    Falls back to importing where the entry function is not written out in the module.
    """
    target = _locate(kind, name)
    spec = importlib.util.find_spec(target) if target else None
    if spec is None or spec.origin is None:
        return flags(kind, load(kind, name))
    function = _stub(Path(spec.origin).read_text(), KINDS[kind].entry)
    return flags(kind, load(kind, name)) if function is None else list(_flags_of(function, spec.origin))


def takers(flag: str) -> list[str]:
    """Which of deepem's own modules take a flag, as words for the command line."""
    return [
        f"{row.flag} {name}"
        for kind, row in KINDS.items()
        for name in siblings(kind)
        if any(known.name == flag for known in flags_unloaded(kind, name))
    ]


def _stub(source: str, entry: str) -> Callable[..., object] | None:
    """A function with the entry function's signature and docstring but no body, or None if that needs the module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == entry:
            inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            node = inits[0] if inits else ast.parse(f"def {entry}(): pass").body[0]
        elif not (isinstance(node, ast.FunctionDef) and node.name == entry):
            continue
        assert isinstance(node, ast.FunctionDef)
        doc = ast.get_docstring(node, clean=False) or ""
        node.name, node.body, node.decorator_list = entry, [ast.Expr(ast.Constant(doc)), ast.Pass()], []
        _forget(node)
        future = ast.parse("from __future__ import annotations").body
        names: dict[str, Any] = {"Literal": typing.Literal, "Path": Path}
        try:
            code = compile(ast.fix_missing_locations(ast.Module([*future, node], [])), "<signature>", "exec")
            exec(code, names)
            typing.get_type_hints(names[entry])
        except NameError:
            return None
        return typing.cast("Callable[..., object]", names[entry])
    return None


def _forget(function: ast.FunctionDef) -> None:
    """Drop the annotations and defaults of a signature that are no flag's: they may need the module's names."""
    arguments = function.args
    function.returns = None
    if arguments.kwarg is not None:
        arguments.kwarg.annotation = None
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument not in arguments.kwonlyargs or argument.arg in FILLED_IN:
            argument.annotation = None
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    for i, argument in enumerate(arguments.kwonlyargs):
        if argument.arg in FILLED_IN:
            arguments.kw_defaults[i] = ast.Constant(None)


def _flags_of(function: Callable[..., object], file: str) -> Iterator[Flag]:
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target)
    helps = _argument_help(inspect.getdoc(target) or "")
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in FILLED_IN:
            if parameter.default is parameter.empty:
                raise InputError(file, f"the flag parameter {name} without a default", "a default for it")
            default = parameter.default
            yield Flag(name, _type(hints.get(name), default), default, helps.get(name, ""), file)


def _type(hint: Any, default: object) -> Any:
    """The type of a flag: its annotation, or where that leaves it open what the default shows."""
    bare = (typing.get_origin(hint) or hint) in (None, list, tuple, Sequence) and not typing.get_args(hint)
    if bare and isinstance(default, list):
        return types.GenericAlias(list, (_type(None, default[0]) if default else str,))
    if bare and isinstance(default, tuple):
        kinds = [type(part) for part in default]
        return types.GenericAlias(tuple, (float,) * len(kinds) if set(kinds) == {int, float} else tuple(kinds))
    return type(default) if hint is None else hint


def _argument_help(doc: str) -> dict[str, str]:
    """The lines of a docstring's Args section: name -> text."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", doc, re.M)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section.group(1), re.M) if section else []
    return {name: " ".join(text.split()) for name, text in entries}


def accepted(function: Callable[..., object], **candidates: object) -> dict[str, object]:
    """Those of the keyword arguments that a function takes by name, or all of them if it takes ``**kwargs``."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return candidates
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {name: value for name, value in candidates.items() if name in names}
