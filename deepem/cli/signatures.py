"""The flags of a plug-in, read from the signature of its entry function.

Each keyword-only parameter is a flag: its name, type and default, and its line in the docstring's Args section.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem.cli.flags import Flag
from deepem.cli.plugins import KINDS, entry_of, load, locate, siblings
from deepem.cli.words import ALLOWED
from deepem.utils.errors import InputError

FILLED_IN = frozenset(
    {"class_keys", "labels", "lazy", "in_spec", "out_spec", "cropsz", "tasks", "create_backbone", "in_channels"}
)
"""Keyword parameters that deepem itself fills in; they are not flags."""


def flags(kind: str, module: ModuleType) -> list[Flag]:
    """Return a plug-in's flags: the keyword-only parameters of its entry function, except those deepem fills in."""
    function = entry_of(kind, module)
    return list(_flags_of(function, str(module.__file__)))


def flags_unloaded(kind: str, name: str) -> list[Flag]:
    """Read the flags of a plug-in from its source, without importing it, so that --help imports nothing heavy.

    Imports the module if the entry function is not defined in its source.
    """
    target = locate(kind, name)
    spec = importlib.util.find_spec(target) if target else None
    if spec is None or spec.origin is None:
        return flags(kind, load(kind, name))
    row, source = KINDS[kind], Path(spec.origin).read_text(encoding="utf-8")
    function = _stub(source, row.entry) or (_stub(source, row.instead) if row.instead else None)
    return flags(kind, load(kind, name)) if function is None else list(_flags_of(function, spec.origin))


def takers(flag: str) -> list[str]:
    """Return which of deepem's own modules take a flag, written as on the command line."""
    return [
        f"{row.flag} {name}"
        for kind, row in KINDS.items()
        for name in siblings(kind)
        if any(known.name == flag for known in flags_unloaded(kind, name))
    ]


def _stub(source: str, entry: str) -> Callable[..., object] | None:
    """Return a function with the entry function's signature and docstring but no body; None if that needs an import."""
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
    """Drop annotations and defaults of parameters that are not flags, since they may need the module's names."""
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
            found = Flag(name, _type(hints.get(name), default), default, helps.get(name, ""), file)
            if not found.is_switch and found.form is None:
                raise InputError(f"{file}: parameter {name}", f"the type {found.type}", ALLOWED)
            yield found


def _type(hint: Any, default: object) -> Any:
    """Return the type of a flag: its annotation, or the type of the default if there is no precise annotation."""
    bare = (typing.get_origin(hint) or hint) in (None, list, tuple, Sequence) and not typing.get_args(hint)
    if bare and isinstance(default, list):
        return types.GenericAlias(list, (_type(None, default[0]) if default else str,))
    if bare and isinstance(default, tuple):
        kinds = [type(part) for part in default]
        return types.GenericAlias(tuple, (float,) * len(kinds) if set(kinds) == {int, float} else tuple(kinds))
    return type(default) if hint is None else hint


def _argument_help(doc: str) -> dict[str, str]:
    """Parse a docstring's Args section: name -> text."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", doc, re.M)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section.group(1), re.M) if section else []
    return {name: " ".join(text.split()) for name, text in entries}
