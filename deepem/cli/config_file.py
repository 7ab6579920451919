"""Reads settings from YAML files: composes them, and keeps the file and line of each.

::

    defaults: [models: small, augment: flyem, _self_]     merges models/small.yaml and augment/flyem.yaml
    training: {lr: 1e-3}                                  a mapping is a heading over settings
    width: [16, 32]

`defaults` names files to build on, in order. ``group: name`` is ``group/name.yaml`` beside the file, and ``name`` is
``name.yaml``. ``_self_`` marks where the file's own settings are merged; without it they come last. If a setting has
several values, the last one wins. Mappings are merged key by key; lists and single values are replaced.

A file may hold the settings of several programs, each under the name of the program (``train:``, ``forward:``).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deepem.utils.errors import InputError, warn

PROGRAMS = (
    *("train", "forward", "segment", "evaluate", "report", "view"),
    *("synthesize", "preview", "queue plan", "suggest"),
)
"""Headings that mark a file as one for several programs."""

SWEEP = "sweep"
"""Heading of the values that `deepem run` sweeps over."""

MOST, DEEPEST = 100_000, 50
"""Values in a file, aliases counted each time, and levels of them."""

DEFAULTS, SELF, MERGE = "defaults", "_self_", "<<"


@dataclass(frozen=True)
class Setting:
    """One setting in a file.

    Attributes:
        path: The headings above the setting, and its own name.
        node: The value as a YAML node: a scalar or a sequence.
        file: The file.
        line: The line number, from 1.
        reading: A number for each reading of a file, since the same file may be read twice.
    """

    path: tuple[str, ...]
    node: Any
    file: str
    line: int
    reading: int

    @property
    def at(self) -> str:
        """The file and line, in the form that errors show."""
        return f"{self.file}:{self.line}"

    @property
    def names(self) -> list[str]:
        """The flags that the setting may mean: its name, alone or joined to one or more of its headings."""
        return ["_".join(self.path[-n:]) for n in range(1, len(self.path) + 1)]


def read(files: Sequence[str | Path]) -> list[Setting]:
    """Read the settings of several files, in order; later settings win.

    Raises:
        InputError: a file cannot be read, or is not valid YAML of this form. The error names the file and line.
    """
    counter = itertools.count()
    return [setting for file in files for setting in _read(Path(file), (), counter, f"--config {file}")]


def of_program(settings: Sequence[Setting], program: str) -> list[Setting]:
    """Return the settings of one program: all settings, or those under its heading in files for several programs.

    Raises:
        InputError: the files are for several programs but lack this one, or a setting belongs to no program.
    """
    known = {*PROGRAMS, program}
    there = headings(settings, known)
    own = [setting for setting in settings if setting.path[0] != SWEEP]
    swept = [setting for setting in settings if setting.path[0] == SWEEP]
    if swept and not is_null(swept[-1].node):
        warn(f"{swept[0].at}: the sweep is ignored; deepem run makes its runs")
    if not there:
        return own
    for setting in own:
        if setting.path[0] not in known:
            wants = f"it under the heading of a program: {', '.join(sorted(there))}"
            raise InputError(f"{setting.at}: {setting.path[0]}", "a setting beside those of programs", wants)
        if len(setting.path) == 1 and not is_empty(setting.node):
            raise InputError(f"{setting.at}: {setting.path[0]}", plain(setting.node), "settings, or {} for none")
    if program not in there:
        raise InputError(f"--config {own[-1].file}", f"no heading {program}", f"one beside {', '.join(sorted(there))}")
    return [
        Setting(setting.path[1:], setting.node, setting.file, setting.line, setting.reading)
        for setting in own
        if setting.path[0] == program and len(setting.path) > 1
    ]


def headings(settings: Sequence[Setting], known: Collection[str] = PROGRAMS) -> set[str]:
    """Return the programs that files for several programs have a heading for; it may have no settings below it."""
    found = {setting.path[0] for setting in settings if len(setting.path) > 1}
    empty = {setting.path[0] for setting in settings if len(setting.path) == 1 and is_empty(setting.node)}
    return (found | empty) & set(known) if found & set(known) else set()


def _read(path: Path, within: tuple[Path, ...], counter: Iterator[int], where: str) -> list[Setting]:
    path_in_words = str(path)
    if path in within:
        raise InputError(where, f"{path}, which this file is read for", "files that do not build on each other")
    node = _compose(path, where)
    if node is None:
        return []
    return list(_Reader(path, within, counter).mapping(node, (), f"{path_in_words}:1"))


def _compose(path: Path, where: str) -> Any:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        there = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        listed = f"one of {', '.join(there)}" if there and not path.exists() else "a YAML file"
        raise InputError(where, f"{path}: {error.strerror}", listed) from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"the byte {error.object[error.start]:#x}, which is not UTF-8", "UTF-8") from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except RecursionError:
        raise InputError(path, "lists or mappings in each other too deep", "fewer levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n", maxsplit=1)[0]
        context = getattr(error, "context", None)
        raise InputError(
            f"{path}{line}", problem.removeprefix("but "), f"YAML ({context})" if context else "YAML"
        ) from None
    _refuse_endless(node, path)
    return node


def _refuse_endless(node: Any, path: Path) -> None:
    """Refuse values that contain themselves, and aliases of aliases that come to more than MOST values."""
    count = 0

    def visit(inner: Any, within: frozenset[int]) -> None:
        nonlocal count
        count += 1
        if id(inner) in within or len(within) > DEEPEST or count > MOST:
            got = f"a {inner.id} that contains itself" if id(inner) in within else "values nested without end"
            raise InputError(f"{path}:{inner.start_mark.line + 1}", got, "NAME: VALUE")
        if not isinstance(inner, yaml.ScalarNode):
            parts = inner.value if isinstance(inner, yaml.SequenceNode) else [p for pair in inner.value for p in pair]
            for part in parts:
                visit(part, within | {id(inner)})

    if node is not None:
        visit(node, frozenset())


@dataclass
class _Reader:
    """Walks over one file."""

    path: Path
    within: tuple[Path, ...]
    counter: Iterator[int]

    def __post_init__(self) -> None:
        self.reading = next(self.counter)

    def at(self, node: Any) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def mapping(self, node: Any, path: tuple[str, ...], at: str) -> Iterator[Setting]:
        """Return the settings of a mapping and of the files that it builds on."""
        if not isinstance(node, yaml.MappingNode):
            raise InputError(at, "no mapping", "NAME: VALUE on each line")
        entries = self.entries(node)
        before, after = self.defaults(entries.pop(DEFAULTS, None), path)
        yield from before
        for name, (value, line) in entries.items():
            if isinstance(value, yaml.MappingNode) and (value.value or path or name not in PROGRAMS):
                yield from self.mapping(value, (*path, name), f"{self.path}:{line}: {name}")
            else:
                yield Setting((*path, name), value, str(self.path), line, self.reading)
        yield from after

    def entries(self, node: Any) -> dict[str, tuple[Any, int]]:
        """Return the values by name; ``<<`` supplies values for names that are not given."""
        merged: dict[str, tuple[Any, int]] = {}
        own: dict[str, tuple[Any, int]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                raise InputError(self.at(key), f"a {key.id} for a name", "NAME: VALUE")
            if key.value == MERGE:
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in reversed(parts):
                    if not isinstance(part, yaml.MappingNode):
                        raise InputError(self.at(key), "<< with something else than mappings", "<<: *NAME")
                    merged |= self.entries(part)
                continue
            if is_null(value) and key.value.lstrip("-").isdigit():
                raise InputError(
                    self.at(key), f"the number {key.value} for a name", "[8, 64, 64] or quotes within braces"
                )
            if key.value in own:
                raise InputError(
                    f"{self.at(key)}: {key.value}", f"it twice, before in line {own[key.value][1]}", "it once"
                )
            own[key.value] = value, key.start_mark.line + 1
        return merged | own

    def defaults(self, given: tuple[Any, int] | None, path: tuple[str, ...]) -> tuple[list[Setting], list[Setting]]:
        """Return the settings of the files to build on: those before the file's own settings, and those after."""
        before, after = list[Setting](), list[Setting]()
        if given is None:
            return before, after
        node, line = given
        wants = "a list such as [models: small, _self_]"
        if not isinstance(node, yaml.SequenceNode):
            raise InputError(f"{self.path}:{line}: {DEFAULTS}", f"a {node.id}", wants)
        found = before
        for item in node.value:
            at = f"{self.at(item)}: {DEFAULTS}"
            if isinstance(item, yaml.ScalarNode) and item.value == SELF:
                found = after
                continue
            if isinstance(item, yaml.ScalarNode):
                file = self.path.parent / item.value
                file = file if file.suffix in (".yaml", ".yml") else file.with_name(f"{file.name}.yaml")
            elif isinstance(item, yaml.MappingNode) and len(item.value) == 1 and item.value[0][1].id == "scalar":
                ((group, name),) = item.value
                file = self.path.parent / group.value / f"{name.value}.yaml"
            else:
                raise InputError(at, f"a {item.id}", wants)
            for setting in _read(file, (*self.within, self.path), self.counter, at):
                found.append(Setting((*path, *setting.path), setting.node, setting.file, setting.line, setting.reading))
        return before, after


def is_null(node: Any) -> bool:
    """Whether a value is null; null counts as not given."""
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")


def is_empty(node: Any) -> bool:
    """Whether a value is null, or a mapping without entries."""
    return is_null(node) or (isinstance(node, yaml.MappingNode) and not node.value)


def truth_of(node: Any) -> bool | None:
    """Return a value as a truth value, or None if it is not one."""
    if not (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":bool")):
        return None
    return str(node.value).lower() in ("true", "yes", "on")


def plain(node: Any) -> Any:
    """Convert a value to plain Python types. ``1e-3`` is a number, as on the command line."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(inner) for inner in node.value]
    if is_null(node):
        return None
    truth = truth_of(node)
    if truth is not None or node.style in ("'", '"'):
        return node.value if truth is None else truth
    for kind in (int, float):
        try:
            return kind(node.value)
        except ValueError:
            continue
    return node.value
