"""Converts a declared flag to arguments for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepem.cli.flags import REQUIRED, Flag
from deepem.cli.words import words_of


def argument_of(flag: Flag) -> dict[str, Any]:
    """Return the keyword arguments of `add_argument` for a flag."""
    if flag.is_switch:
        return {"action": argparse.BooleanOptionalAction if flag.negatable else "store_true"}
    form = flag.form
    assert form is not None, flag.name
    made: dict[str, Any] = {"type": form.read, "metavar": flag.metavar or form.metavar}
    if form.many is not None:
        made |= {"nargs": form.many, "action": _gathering(form.gather)}
    return made


def _gathering(gather: Callable[[list[Any]], Any]) -> type[argparse.Action]:
    """Return an argparse action that combines the values of several words and stores the result."""

    class Gather(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            setattr(namespace, self.dest, gather(values))

    return Gather


def help_of(flag: Flag) -> str:
    """Return a flag's help with its default, unless the default is not worth showing."""
    told = (flag.help or f"of {Path(flag.source).stem}").replace("%", "%%")
    if flag.default in (None, False, "", [], (), REQUIRED) or "(default" in told:
        return told
    shown = " ".join(words_of(flag.default)) if not isinstance(flag.default, bool) else "on"
    return f"{told} (default: {shown.replace('%', '%%')})"
