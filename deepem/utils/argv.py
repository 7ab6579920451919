"""Command lines: typed values, flags of plug-ins, errors of one line.

A command line is read twice. The first reading knows the machinery's flags and so learns which plug-ins are named; the
second knows their flags too. Below the command line nobody sees the result as a whole: functions take plain values.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from deepem.utils import argfile, modules
from deepem.utils.edges import parse_edge
from deepem.utils.errors import InputError, unreadable, warn

PUBLIC = {
    **dict.fromkeys(("recompute", "flip", "grayscale", "warping", "interp", "lost", "random"), 0),
    **dict.fromkeys(("glia_mask", "no_autotune"), 0),
    **dict.fromkeys(("misalign", "missing", "blur", "box", "mip", "depth", "group", "act"), 1),
    "width": sys.maxsize,
}
"""Flags of public argument files that belong to plug-ins here, or to nobody: warned about where none takes them.
Each with the most words that follow it."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, whose files are read as a shell would, that never abbreviates."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            add_help=False,
            fromfile_prefix_chars="@",
            formatter_class=_Help,
        )

    def _read_args_from_files(self, arg_strings: list[str]) -> list[str]:
        """The words, and those of the files among them, which may name further files."""
        return self._expand(arg_strings, ())

    def _expand(self, words: Sequence[str], within: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for word in words:
            if not word.startswith("@"):
                found.append(word)
                continue
            if word in within:
                raise InputError(within[-1], f"{word}, which it is read for", "files that do not name each other")
            found += self._expand(_shield(argfile.read(word[1:])), (*within, word))
        return found

    def error(self, message: str) -> NoReturn:
        """Argparse's words in the form of every other error."""
        where, _, text = message.removeprefix("argument ").partition(": ")
        known = re.match(r"expected (.+?) arguments?$", text)
        if text.startswith("got "):
            raise InputError(where, *text.removeprefix("got ").split(", wants ", 1))
        if known:
            raise InputError(
                where,
                "nothing" if known[1] in ("one", "at least one") else "another number",
                f"{known[1]} value",
            )
        raise InputError(where, text or message, "another value")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with defaults, except where there is none to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, (tuple, list)) and action.default:
            apart = "," if isinstance(action.default, tuple) else " "
            return f"{action.help} (default: {apart.join(map(str, action.default))})"
        silent = action.default in (None, False, argparse.SUPPRESS, "", [])
        return action.help if silent else super()._get_help_string(action)


def _shield(words: Sequence[str]) -> list[str]:
    """Words with negative numbers and vectors marked by a space in front, so that argparse takes them for values."""
    return [f" {word}" if re.match(r"-[\d.]", word) else word for word in words]


def value_of(wants: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of one word whose errors say what it got and what it wants."""

    def convert(text: str) -> Any:
        text = text.strip()
        try:
            return read(text)
        except (ValueError, TypeError):
            raise argparse.ArgumentTypeError(f"got {text}, wants {wants}") from None

    return convert


def _vector(kind: type, least: float | None = None) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        values = tuple(kind(part) for part in text.split(","))
        if len(values) != 3 or (least is not None and min(values) < least):
            raise ValueError
        return values

    return read


def _finite(text: str) -> Any:
    values = _vector(float)(text)
    if not all(abs(value) < float("inf") for value in values):
        raise ValueError
    return values


def _number(kind: type, least: float | None, above: float | None = None) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        number = kind(text)
        if (
            not abs(number) < float("inf")
            or (least is not None and number < least)
            or (above is not None and number <= above)
        ):
            raise ValueError
        return number

    return read


integer = value_of("a whole number", int)
natural = value_of("a whole number, 0 or more", _number(int, 0))
counting = value_of("a whole number, 1 or more", _number(int, 1))
number = value_of("a number", _number(float, None))
positive = value_of("a number above 0", _number(float, None, above=0))
non_negative = value_of("a number, 0 or more", _number(float, 0))
fraction = value_of("a number from 0 to 1", lambda t: _number(float, 0)(t) if float(t) <= 1 else float("no"))
size = value_of("three sizes z,y,x of 1 or more", _vector(int, 1))
vector = value_of("three whole numbers z,y,x", _vector(int))
fractions = value_of("three numbers z,y,x", _finite)
edge = value_of("an edge z,y,x such as 0,0,1", parse_edge)


def one_of(*allowed: Any) -> Callable[[str], Any]:
    """A reader of one word out of several, or of another value by the word that it is written as."""
    words = {str(value): value for value in allowed}

    def read(text: str) -> Any:
        if text not in words:
            raise ValueError
        return words[text]

    return value_of(f"one of {', '.join(words)}", read)


def plug_in_words(options: argparse.Namespace, kinds: Mapping[str, str]) -> list[tuple[str, str]]:
    """(kind, name) of every plug-in that the options name; `kinds` maps an option's name to the kind it names."""
    found: list[tuple[str, str]] = []
    for option, kind in kinds.items():
        value = getattr(options, option)
        found += [(kind, name) for name in ([value] if isinstance(value, str) else value or ())]
    return found


def parse(
    parser: Parser,
    argv: Sequence[str] | None,
    kinds: Mapping[str, str],
    finish: Callable[[argparse.Namespace], None],
) -> argparse.Namespace:
    """Read the command line, with the flags of the plug-ins that it names.

    Args:
        parser: Knows the machinery's flags.
        argv: The words, or None for those of the process.
        kinds: Option -> kind of plug-in it names.
        finish: Fills in defaults that depend on other options (which model, say) after the first reading.

    Raises:
        InputError: anything on the command line that cannot be used.
        SystemExit: after --help.
    """
    words = _shield(sys.argv[1:] if argv is None else argv)
    parser.add_argument("-h", "--help", action="store_true", help="show this and end")
    machinery = {action.dest: action for action in parser._actions}
    first, _ = parser.parse_known_args(words)
    if not first.help:
        finish(first)
    _add_plug_ins(parser, plug_in_words(first, kinds), machinery, loaded=not first.help)
    if first.help:
        parser.print_help()
        raise SystemExit(0)
    options, rest = parser.parse_known_args(words)
    _refuse_unknown(rest)
    finish(options)
    del options.help
    return options


def _add_plug_ins(
    parser: Parser,
    named: Sequence[tuple[str, str]],
    machinery: Mapping[str, argparse.Action],
    *,
    loaded: bool,
) -> None:
    taken: dict[str, modules.Flag] = {}
    for kind, name in named:
        found = modules.flags(kind, modules.load(kind, name)) if loaded else modules.flags_unloaded(kind, name)
        group = parser.add_argument_group(f"{kind} {name}")
        for flag in found:
            if flag.name in machinery:
                raise InputError(f"{flag.file}", f"the flag --{flag.name}", f"another name: {__file__} has it")
            if other := taken.get(flag.name):
                if (other.type, other.default) != (flag.type, flag.default):
                    raise InputError(
                        f"--{flag.name}",
                        f"{_typed(other)} in {other.file} and {_typed(flag)} in {flag.file}",
                        "one type and default",
                    )
                continue
            taken[flag.name] = flag
            _add_flag(group, flag)


def _typed(flag: modules.Flag) -> str:
    return f"{getattr(flag.type, '__name__', flag.type)} = {flag.default!r}"


def _add_flag(group: argparse._ArgumentGroup, flag: modules.Flag) -> None:
    """Add a plug-in's flag by the type of its parameter."""
    kind = flag.type
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = [t for t in typing.get_args(kind) if t is not type(None)]
        kind = inner[0] if len(inner) == 1 else str
    help_text = (flag.help or f"of {Path(flag.file).stem}").replace("%", "%%")
    if kind is bool:
        group.add_argument(
            f"--{flag.name}", action=argparse.BooleanOptionalAction, default=flag.default, help=help_text
        )
        return
    many: dict[str, Any] = {}
    if typing.get_origin(kind) in (list, Sequence, typing.get_origin(Sequence[int])):
        many, kind = {"nargs": "*"}, typing.get_args(kind)[0]
    many["metavar"] = {int: "N", float: "X", str: "TEXT", Path: "FILE"}.get(kind, "Z,Y,X")
    if typing.get_origin(kind) is typing.Literal:
        many["metavar"] = "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    group.add_argument(f"--{flag.name}", type=_reader(flag, kind), default=flag.default, help=help_text, **many)


def _reader(flag: modules.Flag, kind: Any) -> Callable[[str], Any]:
    if typing.get_origin(kind) is typing.Literal:
        return one_of(*typing.get_args(kind))
    readers: dict[Any, Callable[[str], Any]] = {int: integer, float: number, str: str.strip, Path: Path}
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        readers = {(int,) * 3: vector, (float,) * 3: fractions, (int, ...): vector, (float, ...): fractions}
        if parts in readers:
            return readers[parts]
    if kind not in readers:
        allowed = "bool, int, float, str, Path, a Literal, a list[...] of those or a tuple[...] of three numbers"
        raise InputError(f"{flag.file}: parameter {flag.name}", f"the type {kind}", allowed)
    return readers[kind]


def _refuse_unknown(rest: Sequence[str]) -> None:
    """Warn of public flags that no chosen module takes; refuse everything else that was not understood."""
    follow = 0
    for word in rest:
        if not word.startswith("-"):
            if not follow:
                raise InputError(word.strip(), "a word that belongs to no flag", "--FLAG VALUE")
            follow -= 1
            continue
        flag = word.split("=")[0].lstrip("-").replace("-", "_")
        flag = flag.removeprefix("no_") if flag != "no_autotune" else flag
        if flag not in PUBLIC:
            where = modules.takers(flag)
            wants = f"a module that does: {' or '.join(where[:4])}" if where else "a flag of --help"
            raise InputError(word, "a flag that no chosen module takes" if where else "an unknown flag", wants)
        warn(f"{word}: no chosen module takes it; ignored")
        follow = 0 if "=" in word else PUBLIC[flag]


@contextmanager
def one_line_errors(prog: str) -> Iterator[None]:
    """Turn InputError into its one line on stderr and exit code 2; all else keeps its traceback."""
    try:
        yield
    except InputError as error:
        text = " ".join(str(error).split("\n"))
        sys.stderr.write(f"{prog}: error: {text}\n")
        sys.stderr.flush()
        raise SystemExit(2) from None


@contextmanager
def plug_in(flag: str, name: str) -> Iterator[None]:
    """Around a call into a plug-in: a file that it cannot read is bad input, named with the module."""
    try:
        yield
    except OSError as error:
        raise unreadable(f"{flag} {name}", error) from error
