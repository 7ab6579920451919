"""The parser of a program: made from its declared flags and from those of the plug-ins that the command line names.

The words are parsed twice. The first pass knows only the program's own flags, and finds out which plug-ins are named.
The second pass also knows the plug-ins' flags. In between, a program may replace defaults: `forward.py` reads the
checkpoint there and takes over the options that the network was trained with. Settings in the YAML files of --config
are treated as words in front of the command line.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from deepem.cli import argfile, config_file, config_places, config_text, config_words, schema, signatures
from deepem.cli.arguments import argument_of, help_of
from deepem.cli.flags import REQUIRED, Flag, Group, GroupT, filled, flags_of
from deepem.cli.naming import PLUG_IN_FLAGS
from deepem.cli.one_line import OneLineParser, heading_of
from deepem.cli.plugins import load
from deepem.cli.public import refuse_unknown
from deepem.cli.words import SHIELD, text
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class Given:
    """The result of parsing a command line.

    Attributes:
        values: The value of every flag by name: as typed, else as replaced between the passes, else the default.
        typed: The flags that were typed.
        plug_in_flags: The values of the plug-ins' flags alone.
        modules: The named plug-ins: (kind, word, module).
    """

    values: Mapping[str, Any]
    typed: frozenset[str]
    plug_in_flags: Mapping[str, Any]
    modules: tuple[tuple[str, str, ModuleType], ...] = ()


class Parser(OneLineParser):
    """A parser of declared flags. Its errors are one line, and abbreviated flags are not accepted.

    Args:
        prog: The program's name in errors and help.
        description: What the program does.
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
        self.titles: dict[str, list[Flag]] = {}
        self.program = heading_of(prog)
        self.files: dict[str, list[config_file.Setting]] = {}

    def add_group(self, group: type[Group]) -> None:
        """Add the flags of a group under the group's title."""
        self.add_flags(group.title, flags_of(group))

    def add_flags(self, title: str, flags: Iterable[Flag]) -> None:
        """Add flags under a title."""
        group = self.add_argument_group(title)
        for flag in flags:
            self.flags[flag.name] = flag
            self.titles.setdefault(title, []).append(flag)
            names = [*([flag.short] if flag.short else []), f"--{flag.name}"]
            group.add_argument(*names, dest=flag.name, help=help_of(flag), **argument_of(flag))

    def read(
        self,
        words: Sequence[str] | None,
        between: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: {},
        extend: Callable[[Parser, Sequence[ModuleType]], None] = lambda parser, datasets: None,
    ) -> Given:
        """Parse the words, including the flags of the plug-ins that they name.

        Args:
            words: The command line, or None for the process's own.
            between: Takes the values of the first pass, and returns defaults that replace the declared ones.
            extend: Adds the flags that the named dataset modules bring along.

        Raises:
            InputError: something on the command line cannot be used.
            SystemExit: after --help.
        """
        shielded = _shield(sys.argv[1:] if words is None else words)
        self._add_own()
        own = set(self.flags)
        first, _ = self._typed(shielded)
        wants_help, wants_schema, wants_config = (first.pop(n, False) for n in ("help", "schema", "print_config"))
        wants_help = wants_help or wants_schema
        replaced = {} if wants_help else between(self.defaults() | first)
        chosen = self.defaults() | dict(replaced) | first
        named = _plug_in_words({name: value for name, value in chosen.items() if name in own})
        modules = self._add_plug_ins(named, own, loaded=not wants_help)
        plug_ins = set(self.flags) - own
        extend(self, [module for kind, _, module in modules if kind == "dataset"])
        if wants_help:
            sys.stdout.write(schema.schema(self.program, self.titles)) if wants_schema else self.print_help()
            raise SystemExit(0)
        typed, unknown = self._typed(shielded, final=True)
        refuse_unknown(unknown)
        if typed.pop("print_config", False) or wants_config:
            sys.stdout.write(config_text.as_yaml(typed, self.flags, defaults=True))
            raise SystemExit(0)
        replaced = {name: value for name, value in replaced.items() if name in self.flags}
        values = self.defaults() | replaced | typed
        self._require(values)
        return Given(values, frozenset(typed), {name: values[name] for name in plug_ins}, tuple(modules))

    def read_known(self, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the values of this parser's own flags, and the unknown words as they were typed.

        Raises:
            InputError: a value cannot be used, or a required flag is missing.
            SystemExit: after --help.
        """
        self._add_own()
        typed, rest = self._typed(_shield(words))
        wants_help, wants_schema, wants_config = (typed.pop(n, False) for n in ("help", "schema", "print_config"))
        if wants_help or wants_schema:
            sys.stdout.write(schema.schema(self.program, self.titles)) if wants_schema else self.print_help()
            raise SystemExit(0)
        values = self.defaults() | typed
        self._require(values)
        files = config_places.files_of(words)
        kept = [*(["--config", *files] if files else []), *(["--print_config"] if wants_config else [])]
        return values, [text(word) for word in (*rest, *kept)]

    def _add_own(self) -> None:
        """Add the flags that every program takes."""
        group = self.add_argument_group("help and files of settings")
        group.add_argument("-h", "--help", action="store_true", help="show this text and exit")
        group.add_argument("--config", nargs="+", metavar="FILE", help="YAML files of settings; later files win")
        group.add_argument("--print_config", action="store_true", help="print the given settings as YAML and exit")
        group.add_argument("--schema", action="store_true", help="print a JSON schema for files of settings and exit")

    def _require(self, values: Mapping[str, Any]) -> None:
        for name in (name for name, value in values.items() if value is REQUIRED):
            raise InputError(f"--{name}", "nothing", self.flags[name].help)

    def defaults(self) -> dict[str, Any]:
        """Return the declared defaults."""
        return {name: flag.default for name, flag in self.flags.items()}

    def _typed(self, words: Sequence[str], *, final: bool = False) -> tuple[dict[str, Any], list[str]]:
        """Return the values given in YAML files or on the command line, and the unknown words."""
        namespace, unknown = self.parse_known_args(self._with_texts(words))
        typed = vars(namespace)
        files = typed.pop("config", ())
        if not files:
            return typed, unknown
        key = " ".join(files)
        if key not in self.files:
            self.files[key] = config_file.of_program(config_file.read(files), self.program)

        def read(words: list[str]) -> Mapping[str, Any]:
            found, rest = self.parse_known_args(words)
            if rest:
                raise InputError(words[0], f"{len(words) - 1} values", f"{len(words) - 1 - len(rest)}")
            return vars(found)

        return config_words.values(self.files[key], self.flags, read, final=final) | typed, unknown

    def _with_texts(self, words: Sequence[str]) -> list[str]:
        """Mark words with a dash in front that are values of a flag of text, such as ``--out_tag -x``."""
        texts = {f"--{name}": flag for name, flag in self.flags.items() if flag.takes_text}
        marked, asked = [], None
        for word in words:
            if word.startswith("--") or word in self._option_string_actions:
                asked = texts.get(word)
            elif asked is not None:
                word = SHIELD + word if word.startswith("-") and len(word) > 1 else word
                asked = None if asked.form is None or asked.form.many is None else asked
            marked.append(word)
        return marked

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
        """Return the words with each @file replaced by its contents, which may name further files."""
        return self._expand(arg_strings, ())

    def _expand(self, words: Sequence[str], within: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for word in words:
            if not word.startswith("@"):
                found.append(word)
                continue
            if word in within:
                raise InputError(within[-1], f"{word}, which it is read for", "files that do not name each other")
            found += self._expand(self._with_texts(_shield(argfile.read(word[1:]))), (*within, word))
        return found


def _refuse_clash(flag: Flag, own: set[str], other: Flag | None) -> None:
    """Refuse a plug-in's flag that the program already has, or that another plug-in declares differently."""
    if flag.name in own:
        raise InputError(flag.source, f"the flag --{flag.name}", "another name: the program has a flag of this name")
    if other is not None and (other.type, other.default) != (flag.type, flag.default):
        got = f"{_typed_default(other)} in {other.source} and {_typed_default(flag)} in {flag.source}"
        raise InputError(f"--{flag.name}", got, "one type and default")


def _typed_default(flag: Flag) -> str:
    return f"{getattr(flag.type, '__name__', flag.type)} = {flag.default!r}"


def _plug_in_words(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (kind, word) of every plug-in that the values name."""
    found: list[tuple[str, str]] = []
    for name, kind in PLUG_IN_FLAGS.items():
        value = values.get(name) or ()
        found += [(kind, word) for word in ([value] if isinstance(value, str) else value)]
    return found


def _shield(words: Sequence[str]) -> list[str]:
    """Mark words that begin like negative numbers, so that argparse takes them for values."""
    return [SHIELD + word if re.match(r"-[\d.]", word) else word for word in words]


def read_group(program: str, doc: str | None, group: type[GroupT], words: Sequence[str], example: str) -> GroupT:
    """Parse the command line of a program that has a single group of flags.

    Args:
        program: The program's name in errors and help.
        doc: What the program does, such as the module's docstring.
        group: The group that declares the flags.
        words: The command line.
        example: The shortest command that works.

    Raises:
        InputError: something on the command line cannot be used.
        SystemExit: after --help.
    """
    parser = Parser(program, doc or "", example)
    parser.add_group(group)
    return filled(group, parser.read(words).values)


def leading(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words at the first flag or @file."""
    first = next((i for i, word in enumerate(words) if word.startswith(("-", "@"))), len(words))
    return list(words[:first]), list(words[first:])
