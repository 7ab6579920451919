"""A recipe given as a list of operations of `deepem.data.transform`, by name with their arguments.

In a file of settings::

    augment:
      - Misalign: {disp: [0, 17], margin: 1}
      - Blend: {augments: [Flip, FlipRotate, null], props: [1, 1, 2]}
      - Grayscale3D

``Flip`` without arguments flips each axis with probability 1/2. The recipe applies to training only; samples of the
evaluation stay unchanged, unless you write ``augment: {train: [...], val: [...]}``. On the command line, choose the
recipe `listed` and pass the list as JSON in its flag `operations`.
"""

from __future__ import annotations

import difflib
import inspect
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepem.data import transform
from deepem.data.transform import Augment, Blend, Compose, Flip
from deepem.utils.errors import InputError

WHERE = "operations"

OPERATIONS: dict[str, type[Augment]] = {
    name: operation
    for name in transform.__all__
    if isinstance(operation := getattr(transform, name), type)
    and issubclass(operation, Augment)
    and not inspect.isabstract(operation)
}
"""Operations by name, without the general ones that need a function as argument."""
for _general in ("Section", "PartialSection", "MixedSection"):
    OPERATIONS.pop(_general, None)


def get_augmentation(is_train: bool, *, operations: str = "[]") -> Augment:
    """Return the operations, applied in sequence.

    Args:
        is_train: training or validation
        operations: JSON list of operations of the recipe listed
    """
    try:
        given = json.loads(operations)
    except ValueError as error:
        raise InputError(WHERE, error, "a JSON list of operations") from None
    phases = given if isinstance(given, dict) else {"train": given}
    if unknown := phases.keys() - {"train", "val"}:
        raise InputError(WHERE, f"a list for {min(unknown)}", "lists for train and val")
    made = {phase: Compose(_each(phases.get(phase, []), phase)) for phase in ("train", "val")}
    return made["train" if is_train else "val"]


def _each(given: Any, where: str) -> list[Augment | None]:
    if not isinstance(given, list):
        raise InputError(f"{WHERE}.{where}", json.dumps(given), "a list of operations")
    return [_operation(one, f"{where}[{n}]") for n, one in enumerate(given)]


def _operation(given: Any, where: str) -> Augment | None:
    """Make one operation from its name, from {name: arguments}, or from null (no operation)."""
    if given is None:
        return None
    name: Any = given
    arguments: Any = {}
    if isinstance(given, dict) and len(given) == 1:
        ((name, arguments),) = given.items()
        arguments = {} if arguments is None else arguments
    if not isinstance(name, str):
        raise InputError(f"{WHERE}.{where}", json.dumps(given), "an operation: its name, or {NAME: {ARGUMENT: VALUE}}")
    if name not in OPERATIONS:
        near = difflib.get_close_matches(name, OPERATIONS, 1)
        raise InputError(f"{WHERE}.{where}", f"the operation {name}", near[0] if near else f"one of {_listed()}")
    where = f"{where}.{name}"
    if name == "Flip" and not arguments:
        return Compose([Flip(axis) for axis in (-3, -2, -1)])
    operation = OPERATIONS[name]
    if issubclass(operation, (Compose, Blend)):
        arguments = {"augments": arguments} if isinstance(arguments, list) else dict(arguments)
        arguments["augments"] = _each(arguments.get("augments"), f"{where}.augments")
    if not isinstance(arguments, dict):
        raise InputError(f"{WHERE}.{where}", json.dumps(arguments), "ARGUMENT: VALUE")
    checked = _checked(operation, arguments, where)
    try:
        return operation(**checked)
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{WHERE}.{where}", error.got, error.wants) from None
        text = str(error).split(": got ", 1)[-1]
        got, _, wants = text.partition(", wants ")
        raise InputError(f"{WHERE}.{where}", got, wants or "other arguments") from None


def _listed() -> str:
    return ", ".join(OPERATIONS)


def parameters(operation: type[Augment]) -> dict[str, tuple[Any, Any]]:
    """Return an operation's arguments with type and default, including arguments passed on to its base classes."""
    found: dict[str, tuple[Any, Any]] = {}
    for base in operation.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        init = vars(base)["__init__"]
        hints = typing.get_type_hints(init)
        hands_on = False
        for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                hands_on = True
            elif name != "perturb":
                found.setdefault(name, (hints.get(name, Any), parameter.default))
        if not hands_on:
            break
    return found


def _checked(operation: type[Augment], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = parameters(operation)
    checked = {}
    for name, value in arguments.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            wants = near[0] if near else f"one of {', '.join(known)}" if known else "none: it takes no arguments"
            raise InputError(f"{WHERE}.{where}.{name}", "an unknown argument", wants)
        kind = known[name][0]
        if name == "augments":
            checked[name] = value
            continue
        if isinstance(kind, type) and issubclass(kind, Augment):
            checked[name] = _operation(value, f"{where}.{name}")
            continue
        fits = list(_fitting(kind, value))
        if not fits:
            raise InputError(f"{WHERE}.{where}.{name}", json.dumps(value), _wants(kind))
        checked[name] = fits[0]
    for name, (_, default) in known.items():
        if default is inspect.Parameter.empty and name not in checked:
            raise InputError(f"{WHERE}.{where}", f"no {name}", f"it: {{{operation.__name__}: {{{name}: VALUE}}}}")
    return checked


def _fitting(kind: Any, value: Any) -> Iterator[Any]:
    """Convert a value to the type if it fits; an int may become a float, a list a tuple."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        yield from [value] if value in inner else []
    elif kind in (Any, inspect.Parameter.empty):
        yield value
    elif kind is type(None):
        yield from [None] if value is None else []
    elif origin is tuple:
        kinds = [inner[0]] * len(value) if ... in inner and isinstance(value, list) else list(inner)
        if isinstance(value, list) and len(value) == len(kinds):
            parts = [list(_fitting(k, v))[:1] for k, v in zip(kinds, value, strict=True)]
            yield from [tuple(part[0] for part in parts)] if all(parts) else []
    elif inner and origin in (list, Sequence):
        parts = [list(_fitting(inner[0], v))[:1] for v in value] if isinstance(value, list) else [[]]
        yield from [[part[0] for part in parts]] if all(parts) else []
    elif inner:
        for part in inner:
            yield from _fitting(part, value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
    elif kind in (int, str, bool) and type(value) is kind:
        yield value


def _wants(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in names:
        return names[kind]
    if origin is tuple:
        return f"[{', '.join(names.get(part, '...') for part in inner)}]"
    if origin in (list, Sequence):
        return f"a list, each {_wants(inner[0])}"
    return " or ".join(_wants(part) for part in inner) if inner else str(kind)
