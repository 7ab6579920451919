"""The stages of a pipeline, and the record of what was made from what.

A stage is done if its record says that the same words, settings and inputs made the outputs that are there now, told by
their contents and not by their dates. A stage that was killed has no record, and is done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepem.utils.files import write_text

WHOLE = 1 << 26
"""Files of up to so many bytes are read whole to know their contents; of larger ones the size and both ends."""
PIECE = 1 << 20

FILE = "stages.json"


@dataclass(frozen=True)
class Stage:
    """One call of a verb.

    Attributes:
        name: How the pipeline names it, such as ``forward t1``.
        verb: Which program.
        words: Its command line.
        settings: What the file of settings gives it.
        inputs: Files that it reads.
    """

    name: str
    verb: str
    words: Sequence[str]
    settings: Mapping[str, Any]
    inputs: Sequence[Path] = field(default=())

    def made_from(self) -> dict[str, Any]:
        """What decides its outputs, in plain types."""
        made = {
            "verb": self.verb,
            "words": list(self.words),
            "settings": dict(self.settings),
            "inputs": {str(path): fingerprint(path) for path in self.inputs},
        }
        plain: dict[str, Any] = json.loads(json.dumps(made, default=str))
        return plain


def fingerprint(path: Path) -> str:
    """What tells the contents of a file, or of a folder by its files; ``absent`` if it is not there."""
    if path.is_dir():
        parts = [f"{p.relative_to(path)} {fingerprint(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if not path.is_file():
        return "absent"
    size, found = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE:
            found.update(file.read())
        else:
            found.update(file.read(PIECE))
            file.seek(-PIECE, 2)
            found.update(file.read())
    return f"{size} {found.hexdigest()}"


class Records:
    """What was made from what, in a file beside a run.

    Args:
        folder: The folder of the run.

    Attributes:
        told: The stages whose state the user knows.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.told: set[str] = set()

    def _all(self) -> dict[str, Any]:
        try:
            held = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}

    def outputs(self, stage: Stage) -> list[Path] | None:
        """The outputs of a stage that is done, else None."""
        record = self._all().get(stage.name)
        if not isinstance(record, dict) or record.get("from") != stage.made_from():
            return None
        there: Mapping[str, str] = record.get("outputs", {})
        if any(fingerprint(Path(path)) != mark for path, mark in there.items()):
            return None
        return [Path(path) for path in there]

    def why(self, stage: Stage) -> str:
        """Why a stage is not done, in a few words."""
        record = self._all().get(stage.name)
        if not isinstance(record, dict):
            return "not done yet"
        now, before = stage.made_from(), record.get("from", {})
        changed = [part for part in ("words", "settings", "inputs") if now[part] != before.get(part)]
        return f"other {' and '.join(changed)} than before" if changed else "its outputs are not as they were written"

    def add(self, stage: Stage, outputs: Sequence[Path], made_from: Mapping[str, Any]) -> None:
        """Write down that a stage is done."""
        marks = {str(path): fingerprint(path) for path in outputs}
        held = self._all() | {stage.name: {"from": dict(made_from), "outputs": marks}}
        write_text(self.path, json.dumps(held, indent=2) + "\n")
