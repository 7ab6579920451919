"""Words of a command line and their values: how a word is read, and how a value is written so that it reads back."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.utils.edges import parse_edge

SHIELD = "\0"
"""Prefix for words that begin like a negative number, so that argparse takes them for values. Typed words cannot
contain this character.
"""

SLASH = "/"
"""Separates the inner lists of a nested list."""

Read = Callable[[str], Any]


def text(word: str) -> str:
    """Return a word exactly as it was typed."""
    return word.removeprefix(SHIELD)


def value_of(wants: str, read: Read) -> Read:
    """Make a reader for one word whose errors say what it got and what it wants."""

    def convert(word: str) -> Any:
        word = text(word).strip()
        try:
            return read(word)
        except (ValueError, TypeError, OverflowError):
            raise argparse.ArgumentTypeError(f"got {word}, wants {wants}") from None

    return convert


def _number(kind: type, least: float | None = None, above: float | None = None, most: float | None = None) -> Read:
    def read(word: str) -> Any:
        number = kind(word)
        finite = abs(number) < float("inf")
        if not finite or (least is not None and number < least) or (above is not None and number <= above):
            raise ValueError
        if most is not None and number > most:
            raise ValueError
        return number

    return read


def _numbers(kind: type, count: int | None, least: float | None = None) -> Read:
    one = _number(kind, least)

    def read(word: str) -> Any:
        values = tuple(one(part) for part in word.split(","))
        if count is not None and len(values) != count:
            raise ValueError
        return values

    return read


LARGEST = 2**63 - 1
"""The largest whole number that all libraries below accept."""

integer = value_of("a whole number", _number(int, -LARGEST, most=LARGEST))
natural = value_of("a whole number, 0 or more", _number(int, 0, most=LARGEST))
counting = value_of("a whole number, 1 or more", _number(int, 1, most=LARGEST))
number = value_of("a number", _number(float))
positive = value_of("a number above 0", _number(float, above=0))
seconds = value_of("seconds above 0, at most a year (31536000)", _number(float, above=0, most=31536000))
non_negative = value_of("a number, 0 or more", _number(float, 0))
fraction = value_of("a number from 0 to 1", _number(float, 0, most=1))
size = value_of("three sizes z,y,x of 1 or more, with commas: 20,128,128", _numbers(int, 3, 1))
vector = value_of("three whole numbers z,y,x", _numbers(int, 3))
fractions = value_of("three numbers z,y,x", _numbers(float, 3))
edge = value_of("an edge z,y,x such as 0,0,1", parse_edge)
xyz = value_of("three whole numbers x,y,z", _numbers(int, 3))


def one_of(*allowed: Any) -> Read:
    """Make a reader that accepts one of several words and returns the value that the word stands for."""
    known = {str(value): value for value in allowed}

    def read(word: str) -> Any:
        if word not in known:
            raise ValueError
        return known[word]

    return value_of(f"one of {', '.join(known)}", read)


@dataclass(frozen=True)
class Form:
    """How the values of a type are written on the command line.

    Attributes:
        read: Reads one word.
        metavar: Placeholder of a word in --help.
        many: Number of words after the flag, as for argparse's nargs; None for one word.
        gather: Combines the values of several words into the flag's value.
    """

    read: Read
    metavar: str | None
    many: str | int | None = None
    gather: Callable[[list[Any]], Any] = list


_SCALARS: dict[Any, Form] = {
    int: Form(integer, "N"),
    float: Form(number, "X"),
    str: Form(text, "TEXT"),
    Path: Form(lambda word: Path(text(word)), "FILE"),
}

ALLOWED = (
    "bool, int, float, str, Path, a Literal, a tuple of numbers, a list[...] or list[list[...]] of those, "
    "or a dict[str, ...], each with or without None"
)


def form_of(kind: Any) -> Form | None:
    """Return how values of a type are written, or None if a flag cannot have this type.

    ====================  =============================================================
    type                  words
    ====================  =============================================================
    tuple of numbers      ``3,3,3``
    list[T]               ``A B C``
    list[list[T]]         ``A B / C``, the inner lists separated by a slash
    dict[str, T]          ``name=A other=B``
    T | None              as T; ``none`` is None, except for text
    ====================  =============================================================
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin is typing.Literal:
        return Form(one_of(*inner), "{" + ",".join(map(str, inner)) + "}")
    if origin in (typing.Union, types.UnionType):
        return _either([part for part in inner if part is not type(None)], optional=type(None) in inner)
    if origin is tuple:
        return _tuple(inner)
    if origin in (list, Sequence):
        return _list(inner[0])
    if origin in (dict, Mapping) and inner[0] is str:
        return _dict(inner[1])
    return None


def _either(kinds: Sequence[Any], *, optional: bool) -> Form | None:
    found = [form_of(kind) for kind in kinds]
    forms = [form for form in found if form is not None]
    if len(forms) != len(kinds) or (len(forms) > 1 and any(form.many for form in forms)):
        return None
    if len(forms) == 1 and (forms[0].many or kinds[0] is str or not optional):
        return forms[0]

    def read(word: str) -> Any:
        if optional and text(word).strip() == "none":
            return None
        for form in forms[:-1]:
            try:
                return form.read(word)
            except argparse.ArgumentTypeError:
                continue
        return forms[-1].read(word)

    return Form(read, "|".join(str(form.metavar) for form in forms))


def _tuple(inner: Sequence[Any]) -> Form | None:
    kind = inner[0]
    if kind not in (int, float) or not set(inner) <= {kind, ...}:
        return None
    count = None if ... in inner else len(inner)
    if count == 3:
        return Form(vector if kind is int else fractions, "Z,Y,X")
    wants = f"{count or 'some'} {'whole ' if kind is int else ''}numbers with commas between them"
    return Form(value_of(wants, _numbers(kind, count)), "Z,Y,X" if count is None else ",".join("N" * count))


def _list(kind: Any) -> Form | None:
    nested = typing.get_origin(kind) in (list, Sequence)
    form = form_of(typing.get_args(kind)[0] if nested else kind)
    if form is None or form.many:
        return None
    if not nested:
        return Form(form.read, form.metavar, "*")
    return Form(lambda word: SLASH if text(word) == SLASH else form.read(word), form.metavar, "*", _split)


def _split(values: Iterable[Any]) -> list[list[Any]]:
    lists: list[list[Any]] = [[]]
    for value in values:
        if value is SLASH:
            lists.append([])
        else:
            lists[-1].append(value)
    return lists


def _dict(kind: Any) -> Form | None:
    form = form_of(kind)
    if form is None or form.many:
        return None

    def read(word: str) -> tuple[str, Any]:
        name, equals, value = text(word).strip().rpartition("=")
        if not (name and equals):
            raise argparse.ArgumentTypeError(f"got {text(word)}, wants NAME=VALUE")
        return name, form.read(value)

    return Form(read, f"NAME={form.metavar}", "*", dict)


def takes_mapping(form: Form | None) -> bool:
    """Whether a flag's value is a mapping: JSON, or NAME=VALUE repeated."""
    return form is not None and (form.metavar == "JSON" or str(form.metavar).startswith(("NAME=", "[TASK=]")))


def words_of(value: Any) -> list[str]:
    """Return the words after a flag that give a value when read."""
    if value is True:  # for a flag that takes optional names, True is no word
        return []
    if isinstance(value, Mapping):
        return [name if inner is True else f"{name}={_word(inner)}" for name, inner in value.items()]
    if isinstance(value, list):
        if value and all(isinstance(inner, list) for inner in value):
            return [word for inner in value for word in (SLASH, *map(_word, inner))][1:]
        return [_word(inner) for inner in value]
    return [_word(value)]


def _word(value: Any) -> str:
    """Write one value as one word: a tuple as ``z,y,x``, a pair that begins with text as ``name=x``."""
    if value is None:
        return "none"
    if not isinstance(value, (list, tuple)):
        return str(value)
    return ("=" if value and isinstance(value[0], str) else ",").join(map(str, value))


ALL = "all"
"""Key for all tasks that are not named, in values by task."""


def per_task(read: Read) -> Read:
    """Make a reader of ``VALUE`` (for all tasks not named) or ``TASK=VALUE``; it returns (flag or ALL, value)."""

    def convert(word: str) -> tuple[str, Any]:
        name, _, value = text(word).strip().rpartition("=")
        return name or ALL, read(value)

    return convert


def task_on(word: str) -> tuple[str, bool]:
    """Read the flag of a task that something is switched on for."""
    return text(word).strip(), True


def by_task(pairs: Sequence[tuple[str, Any]]) -> Any:
    """Return the single value if no task is named, else the values by task."""
    found = dict(pairs)
    return found[ALL] if [*found] == [ALL] else found


def by_task_or_on(pairs: Sequence[tuple[str, Any]]) -> Any:
    """Return True if no task is named, else the tasks."""
    return by_task(pairs) if pairs else True
