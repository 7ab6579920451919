"""Turns parameter names in errors into flags, with their dashes."""

from __future__ import annotations

import re
from collections.abc import Collection

from deepem.cli.plugins import KINDS

PLUG_IN_FLAGS = {row.flag.lstrip("-"): kind for kind, row in KINDS.items()}
"""Flag that names plug-ins -> the kind of plug-in."""


def with_dashes(where: str, flags: Collection[str]) -> str:
    """Rewrite what an error names for the command line: ``fov (or inputsz)`` becomes ``--fov (or --inputsz)``.

    The name of a plug-in stays behind its flag: ``model rsunet`` becomes ``--model rsunet``.
    """
    head, *rest = re.split(r"( \(|: )", where, maxsplit=1)
    dashed = _dashed(head, flags)
    if dashed is not None:
        return "".join([dashed, *rest[:1], *(_dashed(note, flags) or note for note in rest[1:])])
    first, _, name = where.partition(" ")
    return f"--{where}" if name and first in flags and first in PLUG_IN_FLAGS else where


def _dashed(text: str, flags: Collection[str]) -> str | None:
    """Add dashes to names of flags, separated by commas or "or"; None if the text contains anything else."""
    names = re.findall(r"\w+", text)
    if not names or not all(name in flags or name == "or" for name in names) or not re.fullmatch(r"[\w ,)]+", text):
        return None
    return re.sub(r"\w+", lambda name: name[0] if name[0] == "or" else f"--{name[0]}", text)
