"""Converts settings of YAML files to the values of flags.

Each setting becomes the words that would give it on the command line. The command-line parser then converts and
validates them and explains what is wrong; the error names the file and line.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from deepem.cli import signatures
from deepem.cli.config_file import Setting, is_null, plain, truth_of
from deepem.cli.flags import Flag, without_none
from deepem.cli.public import PUBLIC
from deepem.cli.words import SHIELD, SLASH, takes_mapping
from deepem.utils.errors import InputError, warn

ReadWords = Callable[[list[str]], Mapping[str, Any]]
"""Function from the words of one flag to its value, by name."""

IMPLICIT = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
"""Tags that YAML assigns to plain values by itself."""

LISTED, OPERATIONS = "listed", "operations"
"""The augmentation recipe whose operations are listed in its own flag."""


def values(settings: Sequence[Setting], flags: Mapping[str, Flag], read: ReadWords, *, final: bool) -> dict[str, Any]:
    """Return the values of the flags that the settings give.

    Args:
        settings: The settings; later ones win.
        flags: All known flags, by name.
        read: Parses words as the command line does.
        final: Whether all flags are known by now, so that any other setting is refused.

    Raises:
        InputError: a setting cannot be used. The error names the file and line.
    """
    found: dict[str, Any] = {}
    for name, chosen in _by_flag(list(_with_recipes(settings, flags)), flags, final=final).items():
        given = chosen[-1]
        if is_null(given.node):
            continue
        flag = flags[name]
        try:
            truth = truth_of(given.node)
            if flag.is_switch:
                found[name] = _truth(given)
            elif flag.gather is not None and flag.many == "*" and truth is not None:
                found |= read([f"--{name}"]) if truth else {name: False}  # a switch without words is on
            else:
                words = _mapping_words(flag, chosen) if takes_mapping(flag.form) else _words(flag, given.node)
                found |= read([f"--{name}", *(SHIELD + word for word in words)])
        except InputError as error:
            got = error.got.replace(SHIELD, "")
            raise InputError(f"{given.at}: {spelled(given, name)}", got, error.wants) from None
    return found


def spelled(setting: Setting, flag: str) -> str:
    """Return a setting's name for errors: its own name, or headings and name if the flag's name includes them."""
    return setting.path[-1] if setting.path[-1] == flag else ".".join(setting.path)


def _by_flag(settings: Sequence[Setting], flags: Mapping[str, Flag], *, final: bool) -> dict[str, list[Setting]]:
    """Group settings by flag. A flag set twice in one file is refused; only mappings have several settings."""
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        name = _flag_of(setting, flags)
        if name is None:
            if final:
                _refuse_unknown(setting, flags)
            continue
        before = found.setdefault(name, [])
        if is_mapping_entry := takes_mapping(flags[name].form) and setting.path[-1] != name:
            before.append(setting)
            continue
        for other in before:
            if other.reading == setting.reading and not is_mapping_entry:
                got = f"--{name} again, before in line {other.line}"
                raise InputError(f"{setting.at}: {spelled(setting, name)}", got, "it once")
        found[name] = [setting]
    return found


def _flag_of(setting: Setting, flags: Mapping[str, Flag]) -> str | None:
    """Return the flag that a setting means, or None.

    Raises:
        InputError: several flags fit.
    """
    outer = replace(setting, path=setting.path[:-1])
    for name in outer.names:
        if name in flags and takes_mapping(flags[name].form):
            return name
    fits = [name for name in setting.names if name in flags]
    if len(fits) > 1:
        heading = ".".join(setting.path)
        got = f"what can be {' or '.join(f'--{name}' for name in fits)}"
        raise InputError(f"{setting.at}: {heading}", got, "the flag's whole name under another heading")
    return fits[0] if fits else None


def _refuse_unknown(setting: Setting, flags: Mapping[str, Flag]) -> None:
    where, names = f"{setting.at}: {'.'.join(setting.path)}", setting.names
    if public := [name for name in names if name in PUBLIC]:
        warn(f"{setting.at}: {public[0]}: no chosen module takes it; ignored")
        return
    takers = [taker for name in names for taker in signatures.takers(name)]
    if takers:
        wants = f"a module that does: {' or '.join(takers[:4])}"
        raise InputError(where, "a setting that no chosen module takes", wants)
    near = [match for name in names for match in difflib.get_close_matches(name, flags, 1)]
    raise InputError(where, "an unknown setting", near[0] if near else "a flag of --help, without its dashes")


def _truth(setting: Setting) -> bool:
    found = truth_of(setting.node)
    if found is None:
        raise InputError("", _shown(setting.node), "true or false")
    return found


def _shown(node: Any) -> str:
    return json.dumps(plain(node)) if not isinstance(node, yaml.ScalarNode) else str(node.value) or "nothing"


def _scalar(node: Any, wants: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise InputError("", _shown(node), wants)
    if node.tag.removeprefix("tag:yaml.org,2002:") not in IMPLICIT:
        raise InputError("", f"the tag {node.tag}", "a value without a tag")
    return "none" if is_null(node) else str(node.value)


def _words(flag: Flag, node: Any) -> list[str]:
    """Return the words of a value, without the flag."""
    form = flag.form
    assert form is not None, flag.name
    kind = without_none(flag.type)
    if isinstance(node, yaml.ScalarNode):
        return [_scalar(node, "a value")]
    if form.many is None:
        if typing.get_origin(kind) is not tuple:
            raise InputError("", f"the list {_shown(node)}", "one value")
        return [",".join(_scalar(inner, "a list of numbers") for inner in node.value)]
    inner_kind = (typing.get_args(kind) or (str,))[0]
    if typing.get_origin(inner_kind) is list and all(isinstance(n, yaml.SequenceNode) for n in node.value):
        lists = [[_scalar(part, "a list of lists") for part in inner.value] for inner in node.value]
        return [word for inner in lists for word in (SLASH, *inner)][1:]
    return [_element(inner) for inner in node.value]


def _element(node: Any) -> str:
    if isinstance(node, yaml.SequenceNode):
        return ",".join(_scalar(inner, "a list of numbers") for inner in node.value)
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        ((name, value),) = node.value
        return f"{_scalar(name, 'NAME: VALUE')}={_scalar(value, 'NAME: VALUE')}"
    return _scalar(node, "a list of values")


def _mapping_words(flag: Flag, settings: Sequence[Setting]) -> list[str]:
    if settings[-1].path[-1] == flag.name:
        return _words(flag, settings[-1].node)
    entries = {setting.path[-1]: setting.node for setting in settings}
    kept = {name: _element(node) for name, node in entries.items() if not is_null(node)}
    if flag.form is not None and flag.form.many is None:
        return [json.dumps(kept)]
    return [f"{name}={value}" for name, value in kept.items()]


def _with_recipes(settings: Sequence[Setting], flags: Mapping[str, Flag]) -> Iterator[Setting]:
    """Return the settings; a recipe that lists its operations becomes the recipe `listed` and a setting of its flag."""
    names_one = "augment" in flags and flags["augment"].form is not None and flags["augment"].form.many is None
    for n, setting in enumerate(settings):
        phases = _recipe_of(setting) if names_one else None
        if phases is None:
            yield setting
            continue
        heading = setting.path[:-1] if setting.path[-1] == "augment" else setting.path[:-2]
        recipe = {} if setting.path[-1] == "augment" else _phases_before(settings[:n], heading)
        text = json.dumps({**recipe, **phases} if recipe or "val" in phases else phases["train"])
        for name, value in (("augment", LISTED), (OPERATIONS, text)):
            node = yaml.ScalarNode("tag:yaml.org,2002:str", value, style='"')
            yield replace(setting, path=(*heading, name), node=node, reading=setting.reading + _APART * (n + 1))


_APART = 1 << 32
"""Offset of `reading` that keeps the two settings made from a recipe distinct from settings in a file."""


def _recipe_of(setting: Setting) -> dict[str, Any] | None:
    """Return phase -> operations if a setting is a list of augmentations, else None."""
    if not isinstance(setting.node, yaml.SequenceNode):
        return None
    if setting.path[-1] == "augment":
        return {"train": plain(setting.node)}
    if setting.path[-2:-1] == ("augment",) and setting.path[-1] in ("train", "val"):
        return {setting.path[-1]: plain(setting.node)}
    return None


def _phases_before(settings: Sequence[Setting], heading: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in settings:
        if setting.path[:-1] == (*heading, "augment"):
            found |= _recipe_of(setting) or {}
        elif setting.path == (*heading, "augment"):
            found = {}
    return found
