"""Writes the values of flags as YAML that gives the same values when read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from deepem.cli.config_file import is_null, truth_of
from deepem.cli.config_words import LISTED, OPERATIONS
from deepem.cli.flags import Flag, without_none
from deepem.cli.words import SLASH, words_of


def as_yaml(given: Mapping[str, Any], flags: Mapping[str, Flag], *, defaults: bool = False) -> str:
    """Write values as a file that gives the same values when read, with or without those equal to the default."""
    lines = []
    recipe = given.get("augment") == LISTED and given.get(OPERATIONS)
    for name, flag in flags.items():
        value = given.get(name)
        if name not in given or (recipe and name == OPERATIONS) or (value == flag.default and not defaults):
            continue
        lines.append(f"{name}: {recipe}" if recipe and name == "augment" else f"{name}: {_yaml(flag, value)}")
    return "".join(f"{line}\n" for line in lines)


def _yaml(flag: Flag, value: Any) -> str:
    """Write one value as YAML on one line."""
    if flag.is_switch or value is True or (value is None and without_none(flag.type) is str):
        return json.dumps(value)
    many = flag.form is not None and flag.form.many is not None
    if isinstance(value, Mapping) and not many:
        return "{" + ", ".join(f"{_quoted(str(k))}: {_quoted(str(v))}" for k, v in value.items()) + "}"
    words = words_of(list(value) if many and isinstance(value, tuple) else value)
    if not many:
        return _quoted(words[0], flow=False)
    if SLASH in words:
        return _nested(words)
    return f"[{', '.join(map(_quoted, words))}]"


def _nested(words: Sequence[str]) -> str:
    lists: list[list[str]] = [[]]
    for word in words:
        if word == SLASH:
            lists.append([])
        else:
            lists[-1].append(_quoted(word))
    return "[" + ", ".join(f"[{', '.join(inner)}]" for inner in lists) + "]"


def _quoted(word: str, *, flow: bool = True) -> str:
    """Write a word as YAML that reads back as the same word."""
    try:
        node: Any = yaml.compose(f"[{word}]" if flow else f"x: {word}", yaml.SafeLoader)
        inner = node.value if flow else [node.value[0][1]]
        if len(inner) == 1 and isinstance(inner[0], yaml.ScalarNode):
            same = inner[0].value == word and inner[0].style is None
            if same and not is_null(inner[0]) and truth_of(inner[0]) is None:
                return word
    except (yaml.YAMLError, AttributeError, TypeError, IndexError):
        pass
    return json.dumps(word, ensure_ascii=False)
