"""Flags as fields: each flag of a program is declared once, as a field of a frozen dataclass.

::

    @dataclass(frozen=True)
    class OptimiserOptions(Group):
        title = "optimiser"
        lr: float = flag(0.001, "learning rate", read=words.positive, resume=ASK)

The parser, --help, files of arguments, the options in a checkpoint and the comparison on resume are all derived from
this one line. A plug-in's flags are the keyword-only parameters of its entry function; `deepem.cli.signatures` converts
them to the same `Flag`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from deepem.cli.words import Form, Read, form_of

Resume = Literal["same", "ask", "rounding", "free"]

SAME: Resume = "same"
"""A resumed run must have the same value, because it affects which samples train which network, or how."""
ASK: Resume = "ask"
"""A resumed run must have the same value, unless ``--change NAME`` confirms the change."""
ROUNDING: Resume = "rounding"
"""A resumed run may change the value. Results then differ by rounding, and one line says so."""
FREE: Resume = "free"
"""A resumed run may change the value."""


class _Unset:
    """Marks a flag that has existed in every version, so that it has no `older` value."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


class _Required:
    """Marks a flag that must be given."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


@dataclass(frozen=True)
class Flag:
    """One flag of a command line.

    Attributes:
        name: The name without dashes, which is also the field or parameter that the flag sets.
        type: The type of its value.
        default: The value if the flag is not given.
        help: One line for --help.
        source: The file that declares it, named in errors.
        read: Converts one word, if the type alone does not determine how.
        metavar: Placeholder of the value in --help.
        many: Number of words, as for argparse's nargs (``+``, ``*`` or a number), if the type does not determine it. If
            `read` is given, the default is one word.
        short: A one-letter alias of the flag.
        negatable: Whether a switch also has the form ``--no-NAME``.
        resume: Whether a resumed run may change the value: SAME, ASK, ROUNDING or FREE.
        older: The value that runs had before this flag existed. A resumed older run adopts it.
        gather: Combines the values of the words into one value, if the type does not determine how.
    """

    name: str
    type: Any
    default: Any
    help: str
    source: str = ""
    read: Read | None = None
    metavar: str | None = None
    many: str | int | None = None
    short: str | None = None
    negatable: bool = True
    resume: Resume = SAME
    older: Any = UNSET
    gather: Callable[[list[Any]], Any] | None = None

    @property
    def is_switch(self) -> bool:
        """Whether the flag is a switch, which takes no value."""
        return without_none(self.type) is bool

    @property
    def takes_text(self) -> bool:
        """Whether its words are texts or paths, which may begin with a dash."""
        return self.read is None and without_none(self.type) in (str, Path, list[str], list[Path])

    @property
    def form(self) -> Form | None:
        """How a value of this type is written, or None if the type cannot be written as words."""
        found = form_of(self.type)
        if self.read is None and self.many is None:
            return found
        many = found.many if found is not None and self.read is None and self.many is None else self.many
        gather = found.gather if found is not None else list
        if typing.get_origin(without_none(self.type)) is tuple and many is not None:
            gather = tuple
        gather = self.gather or gather
        read = self.read or (found.read if found else str)
        return Form(read, self.metavar or (found.metavar if found else None), many, gather)


def without_none(kind: Any) -> Any:
    """Return T for an optional type T | None; any other type is returned as it is."""
    inner = [part for part in typing.get_args(kind) if part is not type(None)]
    return inner[0] if len(inner) == 1 and type(None) in typing.get_args(kind) else kind


def flag(
    default: Any,
    help: str,
    *,
    read: Read | None = None,
    metavar: str | None = None,
    many: str | int | None = None,
    short: str | None = None,
    negatable: bool = False,
    resume: Resume = SAME,
    older: Any = UNSET,
    gather: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Declare a flag as a field of a `Group`; see `Flag` for the arguments."""
    declared = {
        "help": help, "read": read, "metavar": metavar, "many": many, "short": short, "negatable": negatable,
        "resume": resume, "older": older, "gather": gather,
    }  # fmt: skip
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=declared)
    return dataclasses.field(default=default, metadata=declared)


class Group:
    """Flags under one heading of --help. Subclasses are frozen dataclasses."""

    title: ClassVar[str] = ""


GroupT = TypeVar("GroupT", bound=Group)


def flags_of(group: type[Group]) -> list[Flag]:
    """Return the flags that a group declares, in order."""
    hints = typing.get_type_hints(group)
    found = []
    for field in dataclasses.fields(group):  # type: ignore[arg-type]
        default = field.default_factory() if callable(field.default_factory) else field.default
        found.append(Flag(field.name, hints[field.name], default, source=group.__module__, **field.metadata))
    return found


def filled(group: type[GroupT], values: Mapping[str, Any]) -> GroupT:
    """Create a group from the values of its flags."""
    return group(**{f.name: values[f.name] for f in dataclasses.fields(group)})  # type: ignore[arg-type]


def groups_of(options: type[Any]) -> dict[str, type[Group]]:
    """Return field name -> group for all groups in a program's options."""
    hints = typing.get_type_hints(options)
    return {name: kind for name, kind in hints.items() if isinstance(kind, type) and issubclass(kind, Group)}


def declared(options: type[Any]) -> Iterator[Flag]:
    """Return every flag that a program's options declare."""
    for group in groups_of(options).values():
        yield from flags_of(group)
