"""Writes a JSON schema for YAML files of settings, from the declared flags; editors use it to complete and validate."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.cli.flags import REQUIRED, Flag, without_none
from deepem.cli.words import takes_mapping

SCALARS: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": ["string", "number", "boolean"]},
    Path: {"type": "string"},
}
"""YAML reads `no` and 7 as other types, but they are valid where text is expected."""


DRAFT = "https://json-schema.org/draft/2020-12/schema"
FILES = {"type": "array", "description": "files to build on"}


def schema(program: str, titles: Mapping[str, Sequence[Flag]]) -> str:
    """Return the schema of a program's settings as JSON text.

    Args:
        program: The program's name.
        titles: The program's flags by group.
    """
    whole = {
        "$schema": DRAFT,
        "title": f"settings of deepem {program}",
        "$ref": "#/$defs/settings",
        "$defs": {
            "settings": {
                "type": "object",
                "properties": {"defaults": FILES, **_settings(titles)},
                "additionalProperties": {"$ref": "#/$defs/settings", "description": "a heading over settings"},
            }
        },
    }
    return json.dumps(whole, indent=2) + "\n"


def pipeline(programs: Mapping[str, Mapping[str, Sequence[Flag]]]) -> str:
    """Return the schema of a file with a heading for each of several programs, as JSON text.

    Args:
        programs: The programs' flags by group. The flags of plug-ins are not known, so other names are allowed.
    """
    headings = {
        name: {"type": ["object", "null"], "properties": _settings(titles), "description": f"settings of deepem {name}"}
        for name, titles in programs.items()
    }
    swept = {
        "type": ["object", "null"],
        "additionalProperties": {"type": ["array", "null"], "minItems": 1},
        "description": "lists of values; every combination is one run",
    }
    whole = {
        "$schema": DRAFT,
        "title": "settings of deepem run",
        "type": "object",
        "properties": {"defaults": FILES, **headings, "sweep": swept},
        "additionalProperties": False,
    }
    return json.dumps(whole, indent=2) + "\n"


def _settings(titles: Mapping[str, Sequence[Flag]]) -> dict[str, Any]:
    settings = {flag.name: _setting(flag, title) for title, flags in titles.items() for flag in flags}
    if "augment" in settings:
        settings["augment"]["anyOf"] += [{"type": "array"}, {"type": "object"}]
    return settings


def _setting(flag: Flag, title: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": f"{title}: {flag.help}"}
    kinds = _kinds(flag)
    found |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if flag.default is not REQUIRED and isinstance(flag.default, (bool, int, float, str)):
        found["default"] = flag.default
    return found


def _kinds(flag: Flag) -> list[dict[str, Any]]:
    """Return the schema of a flag's value; a list of one item may be written without brackets."""
    if flag.is_switch:
        return [SCALARS[bool], {"type": "null"}]
    kinds = [_of_type(without_none(flag.type))]
    if flag.form is not None and flag.form.many is not None:
        kinds.append({"type": ["string", "number"]})
    if takes_mapping(flag.form):
        kinds.append({"type": "object"})
    return [*kinds, {"type": "null"}]


def _of_type(kind: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of_type(part) for part in inner if part is not type(None)]}
    if origin is tuple:
        return {"anyOf": [{"type": "string", "pattern": ","}, {"type": "array"}]}
    if origin in (list, Sequence):
        return {"type": "array", "items": _of_type(inner[0])}
    return {"type": "object"} if origin in (dict, Mapping) else {}
