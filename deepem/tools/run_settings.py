"""The options of a run beside their defaults, by the flags that are declared today."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.cli import argfile, signatures, train_parser
from deepem.cli.flags import Flag
from deepem.cli.naming import PLUG_IN_FLAGS
from deepem.cli.plugins import KINDS, siblings
from deepem.runs.folder import plain
from deepem.utils.errors import InputError

OTHERS = "flags of modules outside deepem, and of other versions"


@dataclass(frozen=True)
class Setting:
    """An option of a run.

    Attributes:
        name: The flag.
        value: Its value as text.
        default: Its default as text; empty if the flag is not known.
        help: What it means.
        group: The heading that it stands under in --help.
        differs: Whether the value differs from the default.
        filled_in: Whether the run itself chose the value, for a flag that nobody gave.
    """

    name: str
    value: str
    default: str
    help: str
    group: str
    differs: bool
    filled_in: bool


def settings_of(options: Mapping[str, Any], given: Collection[str] | None) -> list[Setting]:
    """Return the options of a run, in the order of --help.

    Args:
        options: The options by flag, as options.json has them.
        given: The flags in options.args; None if that is not known.
    """
    known = dict(_flags(options))
    found = []
    for name, (group, flag) in known.items():
        if name not in options:
            continue
        value, default = options[name], plain(flag.default)
        differs = value != default
        filled_in = differs and given is not None and name not in given
        shown, usual = as_typed(flag, value), as_typed(flag, default)
        found.append(Setting(name, shown, usual, flag.help, group, differs, filled_in))
    rest = [name for name in options if name not in known and options[name] is not None]
    return found + [Setting(name, text(options[name]), "", "", OTHERS, False, False) for name in rest]


def given_flags(path: Path) -> set[str] | None:
    """Return the flags in an options.args, or None if it cannot be read."""
    try:
        words = argfile.read(str(path))
    except InputError:
        return None
    return {word.removeprefix("--").removeprefix("no-").partition("=")[0] for word in words if word.startswith("--")}


def _flags(options: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Flag]]]:
    """Return flag -> (heading, declaration): those of training, then those of deepem's own modules that it used.

    A file never decides which code runs, so the flags of modules outside deepem stay unknown.
    """
    for title, flags in train_parser.parser().titles.items():
        yield from ((flag.name, (title.partition(" (")[0], flag)) for flag in flags)
    for name, kind in PLUG_IN_FLAGS.items():
        package, there = KINDS[kind].package, siblings(kind)
        for word in names(options.get(name)):
            own = word.removeprefix(f"{package}.").replace("-", "_")
            if own in there:
                flags = signatures.flags_unloaded(kind, f"{package}.{own}")
                yield from ((flag.name, (f"{kind} {word}", flag)) for flag in flags)


def names(value: Any) -> list[str]:
    """Return a name or a list of names as a list; nothing for any other value."""
    given = [value] if isinstance(value, str) else value
    return [str(name) for name in given] if isinstance(given, (list, tuple)) else []


def as_typed(flag: Flag, value: Any) -> str:
    """Return the value of a flag as one types it: 16 32 64 for a list, 16,96,96 for a size."""
    many = flag.form is not None and flag.form.many is not None
    return " ".join(map(text, value)) if many and isinstance(value, list) and value else text(value)


def text(value: Any) -> str:
    """Return a value as it is read most easily: 16,96,96 for a size, and edges apart."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(inner, (list, tuple)) for inner in value)
        numbers = all(isinstance(inner, (int, float)) for inner in value)
        return (" " if nested or not numbers else ",").join(map(text, value)) or "none"
    return str(value)
