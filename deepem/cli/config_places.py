"""Errors about flags that were set in a YAML file: they name the file and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import yaml

from deepem.cli import config_file
from deepem.cli.config_file import Setting, is_null
from deepem.cli.config_words import OPERATIONS, spelled
from deepem.utils.errors import InputError


def files_of(words: Sequence[str]) -> list[str]:
    """Return the files after --config on a command line."""
    found: list[str] = []
    taking = False
    for word in words:
        if word.startswith("-"):
            taking = word == "--config"
            found += [word.removeprefix("--config=")] if word.startswith("--config=") else []
        elif taking:
            found.append(word)
    return found


def explained(error: InputError, program: str, words: Sequence[str]) -> InputError:
    """Rewrite an error about a flag that a file set, so that it names the file and line."""
    name = re.match(r"(?:--)?(\w+)", error.where)
    files = files_of(words)
    if not files or name is None or any(re.match(rf"--(no-)?{name[1]}($|=)", word) for word in words):
        return error
    try:
        settings = config_file.read(files)
        with suppress(InputError):
            settings = config_file.of_program(settings, program)
    except InputError:
        return error
    where = placed(error.where, settings)
    return error if where is None else InputError(where, error.got, error.wants)


def placed(where: str, settings: Sequence[Setting]) -> str | None:
    """Return what the error names, with the file and line that set it, or None if no setting did.

    Args:
        where: The text that the error names: ``--lr``, ``--data nosuch``, or ``--operations[2].Misalign.disp`` in a
            recipe.
        settings: The settings of the files on the command line.
    """
    found = re.match(r"(?:--)?(\w+)((?:\[\d+\]|\.\w+)*)(.*)", where)
    if found is None:
        return None
    name, inside, rest = found.groups()
    if rest and rest[0] not in " ,(":
        return None
    if name == OPERATIONS:
        name, inside = "augment", inside.removeprefix(".train")
    path = [part for part in re.split(r"[\[\].]+", inside) if part]
    for setting in reversed(settings):
        if is_null(setting.node):
            continue
        if name in setting.names:
            return f"{_line_in(setting, path)}: {spelled(setting, name)}{inside}{rest}"
        if name == "augment" and setting.path[-2:-1] == ("augment",):
            phase = setting.path[-1]
            if phase == (path[0] if path[:1] == ["val"] else "train"):
                inside = inside.removeprefix(".val")
                return f"{_line_in(setting, path[phase == 'val' :])}: augment.{phase}{inside}{rest}"
    return None


def _line_in(setting: Setting, path: Sequence[str]) -> str:
    """Return the file and line of a part of a value."""
    node, line = setting.node, setting.line
    for part in path:
        if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
        elif isinstance(node, yaml.MappingNode):
            entries = {key.value: (key, value) for key, value in node.value}
            if part not in entries:
                break
            key, node = entries[part]
            line = key.start_mark.line + 1
            continue
        else:
            break
        line = node.start_mark.line + 1
    return f"{setting.file}:{line}"
