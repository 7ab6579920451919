"""The parser of a program: made from its declared flags, then from those of the plug-ins that the words name.

The words are read twice. The first reading knows the program's own flags and so learns which plug-ins are named. The
second also knows the plug-ins' flags. Between the two, a program may replace defaults: `forward.py` reads the
checkpoint there and takes what the network was trained with.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from deepem.cli import argfile, signatures
from deepem.cli.flags import REQUIRED, Flag, Group, GroupT, filled, flags_of
from deepem.cli.plugins import KINDS, load
from deepem.cli.public import PUBLIC
from deepem.cli.words import SHIELD, text, words_of
from deepem.utils.errors import InputError, of_environment, warn
from deepem.utils.exit_codes import BAD_INPUT
from deepem.utils.terminal import lasting_streams

PLUG_IN_FLAGS = {row.flag.lstrip("-"): kind for kind, row in KINDS.items()}
"""Flag that names plug-ins -> their kind."""


@dataclass(frozen=True)
class Given:
    """What a command line says.

    Attributes:
        values: Every flag's value by name: as typed, else replaced between the readings, else its default.
        typed: The flags that were typed.
        plug_in_flags: The values of the plug-ins' flags alone.
        modules: The plug-ins that were named: (kind, word, module).
    """

    values: Mapping[str, Any]
    typed: frozenset[str]
    plug_in_flags: Mapping[str, Any]
    modules: tuple[tuple[str, str, ModuleType], ...] = ()


class Parser(argparse.ArgumentParser):
    """A parser of declared flags. Its errors are one line, and it never completes abbreviated flags.

    Args:
        prog: The program's name in errors and help.
        description: What it does.
        example: The shortest command that works.
    """

    def __init__(self, prog: str, description: str, example: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=example or "%(prog)s [flags]",
            description=description,
            allow_abbrev=False,
            add_help=False,
            fromfile_prefix_chars="@",
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.flags: dict[str, Flag] = {}

    def add_group(self, group: type[Group]) -> None:
        """Add the flags of a group under its title."""
        self.add_flags(group.title, flags_of(group))

    def add_flags(self, title: str, flags: Iterable[Flag]) -> None:
        """Add flags under a title."""
        group = self.add_argument_group(title)
        for flag in flags:
            self.flags[flag.name] = flag
            names = [*([flag.short] if flag.short else []), f"--{flag.name}"]
            group.add_argument(*names, dest=flag.name, help=_help_of(flag), **_argument(flag))

    def read(
        self,
        words: Sequence[str] | None,
        between: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: {},
        extend: Callable[[Parser, Sequence[ModuleType]], None] = lambda parser, datasets: None,
    ) -> Given:
        """Read the words, with the flags of the plug-ins that they name.

        Args:
            words: The command line, or None for that of the process.
            between: From the values of the first reading to defaults that replace the declared ones.
            extend: Adds flags that the named dataset modules bring.

        Raises:
            InputError: anything on the command line that cannot be used.
            SystemExit: after --help.
        """
        shielded = _shield(sys.argv[1:] if words is None else words)
        self.add_argument("-h", "--help", action="store_true", help="show this text and exit")
        own = set(self.flags)
        first, _ = self._typed(shielded)
        wants_help = first.pop("help", False)
        replaced = {} if wants_help else between(self.defaults() | first)
        named = _plug_in_words(self.defaults() | dict(replaced) | first)
        modules = self._add_plug_ins(named, own, loaded=not wants_help)
        plug_ins = set(self.flags) - own
        extend(self, [module for kind, _, module in modules if kind == "dataset"])
        if wants_help:
            self.print_help()
            raise SystemExit(0)
        typed, unknown = self._typed(shielded)
        _refuse_unknown(unknown)
        replaced = {name: value for name, value in replaced.items() if name in self.flags}
        values = self.defaults() | replaced | typed
        self._require(values)
        return Given(values, frozenset(typed), {name: values[name] for name in plug_ins}, tuple(modules))

    def read_known(self, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The values of this parser's own flags, and the words that it does not know, as they were typed.

        Raises:
            InputError: a value that cannot be used, or a required flag that is not there.
            SystemExit: after --help.
        """
        self.add_argument("-h", "--help", action="store_true", help="show this text and exit")
        typed, rest = self._typed(_shield(words))
        if typed.pop("help", False):
            self.print_help()
            raise SystemExit(0)
        values = self.defaults() | typed
        self._require(values)
        return values, [text(word) for word in rest]

    def _require(self, values: Mapping[str, Any]) -> None:
        for name in (name for name, value in values.items() if value is REQUIRED):
            raise InputError(f"--{name}", "nothing", self.flags[name].help)

    def defaults(self) -> dict[str, Any]:
        """The declared defaults."""
        return {name: flag.default for name, flag in self.flags.items()}

    def _typed(self, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        namespace, unknown = self.parse_known_args(words)
        return vars(namespace), unknown

    def _add_plug_ins(
        self, named: Sequence[tuple[str, str]], own: set[str], *, loaded: bool
    ) -> list[tuple[str, str, ModuleType]]:
        taken: dict[str, Flag] = {}
        modules = []
        for kind, word in named:
            if loaded:
                modules.append((kind, word, load(kind, word)))
            found = signatures.flags(kind, modules[-1][2]) if loaded else signatures.flags_unloaded(kind, word)
            for flag in found:
                _refuse_clash(flag, own, taken.get(flag.name))
            self.add_flags(f"{kind} {word}", [flag for flag in found if flag.name not in taken])
            taken |= {flag.name: flag for flag in found}
        return modules

    def _read_args_from_files(self, arg_strings: list[str]) -> list[str]:
        """The words, with those of the files among them, which may name further files."""
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
        """Turn argparse's message into the form of every other error."""
        where, _, words = message.removeprefix("argument ").partition(": ")
        where = where.split("/")[-1]
        known = re.match(r"expected (.+?) arguments?$", words)
        if words.startswith("got "):
            raise InputError(where, *words.removeprefix("got ").split(", wants ", 1))
        if known:
            nothing = known[1] in ("one", "at least one")
            raise InputError(where, "nothing" if nothing else "another number", f"{known[1]} value")
        raise InputError(where, words or message, "another value")


def _argument(flag: Flag) -> dict[str, Any]:
    """What argparse needs to know of a flag."""
    if flag.is_switch:
        return {"action": argparse.BooleanOptionalAction if flag.negatable else "store_true"}
    form = flag.form
    assert form is not None, flag.name
    made: dict[str, Any] = {"type": form.read, "metavar": flag.metavar or form.metavar}
    if form.many is not None:
        made |= {"nargs": form.many, "action": _gathering(form.gather)}
    return made


def _gathering(gather: Callable[[list[Any]], Any]) -> type[argparse.Action]:
    """An action that stores what becomes of the values of several words."""

    class Gather(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            setattr(namespace, self.dest, gather(values))

    return Gather


def _help_of(flag: Flag) -> str:
    """A flag's help with its default, unless there is none worth telling."""
    told = (flag.help or f"of {Path(flag.source).stem}").replace("%", "%%")
    if flag.default in (None, False, "", [], (), REQUIRED) or "(default" in told:
        return told
    shown = " ".join(words_of(flag.default)) if not isinstance(flag.default, bool) else "on"
    return f"{told} (default: {shown.replace('%', '%%')})"


def _refuse_clash(flag: Flag, own: set[str], other: Flag | None) -> None:
    """Refuse a plug-in's flag that the program has, or that another plug-in has with another meaning."""
    if flag.name in own:
        raise InputError(flag.source, f"the flag --{flag.name}", "another name: the program has a flag of this name")
    if other is not None and (other.type, other.default) != (flag.type, flag.default):
        got = f"{_typed_default(other)} in {other.source} and {_typed_default(flag)} in {flag.source}"
        raise InputError(f"--{flag.name}", got, "one type and default")


def _typed_default(flag: Flag) -> str:
    return f"{getattr(flag.type, '__name__', flag.type)} = {flag.default!r}"


def _plug_in_words(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, word) of every plug-in that the values name."""
    found: list[tuple[str, str]] = []
    for name, kind in PLUG_IN_FLAGS.items():
        value = values.get(name) or ()
        found += [(kind, word) for word in ([value] if isinstance(value, str) else value)]
    return found


def _shield(words: Sequence[str]) -> list[str]:
    """The words, those that begin like negative numbers marked as values for argparse."""
    return [SHIELD + word if re.match(r"-[\d.]", word) else word for word in words]


def _refuse_unknown(rest: Sequence[str]) -> None:
    """Warn of public flags that no chosen module takes; refuse everything else that was not understood."""
    follow = 0
    for shielded in rest:
        word = text(shielded)
        if not shielded.startswith("-"):
            if not follow:
                raise InputError(word.strip(), "a word that belongs to no flag", "--FLAG VALUE")
            follow -= 1
            continue
        name = word.split("=")[0].lstrip("-").replace("-", "_")
        name = name.removeprefix("no_") if name != "no_autotune" else name
        if name not in PUBLIC:
            where = signatures.takers(name)
            wants = f"a module that does: {' or '.join(where[:4])}" if where else "a flag of --help"
            raise InputError(word, "a flag that no chosen module takes" if where else "an unknown flag", wants)
        warn(f"{word}: no chosen module takes it; ignored")
        follow = 0 if "=" in word else PUBLIC[name]


def read_group(program: str, doc: str | None, group: type[GroupT], words: Sequence[str], example: str) -> GroupT:
    """Read the command line of a program with a single group of flags.

    Args:
        program: Its name in errors and help.
        doc: What it does, such as the module's docstring.
        group: Declares the flags.
        words: The command line.
        example: The shortest command that works.

    Raises:
        InputError: anything on the command line that cannot be used.
        SystemExit: after --help.
    """
    parser = Parser(program, doc or "", example)
    parser.add_group(group)
    return filled(group, parser.read(words).values)


@contextmanager
def one_line_errors(program: str) -> Iterator[set[str]]:
    """Turn an InputError, or a refusal of the system, into one line on stderr and exit code 2.

    Any other error keeps its traceback. Within, what is printed never ends the program.

    Yields a set to put the names of flags into. Where an error of the library names a parameter that is one of them,
    the line gives it its dashes.

    Args:
        program: Begins the line.
    """
    flags = set[str]()
    with lasting_streams():
        try:
            yield flags
        except (InputError, OSError, MemoryError) as error:
            told = error if isinstance(error, InputError) else of_environment(error)
            if told is None:
                raise
            line = " ".join(f"{with_dashes(told.where, flags)}: got {told.got}, wants {told.wants}".split("\n"))
            sys.stderr.write(f"{program}: error: {line}\n")
            sys.stderr.flush()
            raise SystemExit(BAD_INPUT) from None


def with_dashes(where: str, flags: Collection[str]) -> str:
    """What an error names, as the command line knows it: ``fov (or inputsz)`` becomes ``--fov (or --inputsz)``.

    A plug-in keeps its name behind its flag: ``model rsunet`` becomes ``--model rsunet``.
    """
    names = re.findall(r"[A-Za-z_]\w*", where)
    if names and all(name in flags or name == "or" for name in names) and re.fullmatch(r"[\w ,()]+", where):
        return re.sub(r"[A-Za-z_]\w*", lambda name: name[0] if name[0] == "or" else f"--{name[0]}", where)
    first, _, rest = where.partition(" ")
    return f"--{where}" if rest and first in flags and first in PLUG_IN_FLAGS else where
