"""The stages of a pipeline, and the record of the inputs from which each made its outputs.

A stage is done if its record has the same words, settings and inputs, and its outputs still exist unchanged. Files are
compared by their contents and not by their dates. A stage that was killed has no record and is repeated.
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
"""Fingerprint files up to this many bytes by their whole content, and larger ones by size and both ends."""
PIECE = 1 << 20

FILE = "stages.json"


@dataclass(frozen=True)
class Stage:
    """One call of a verb.

    Attributes:
        name: Its name in the pipeline, such as ``forward t1``.
        verb: The program.
        words: Its command line.
        settings: Its settings from the file.
        inputs: The files that it reads.
    """

    name: str
    verb: str
    words: Sequence[str]
    settings: Mapping[str, Any]
    inputs: Sequence[Path] = field(default=())

    def made_from(self) -> dict[str, Any]:
        """Return everything that determines its outputs, as plain values."""
        made = {
            "verb": self.verb,
            "words": list(self.words),
            "settings": dict(self.settings),
            "inputs": {str(path): fingerprint(path) for path in self.inputs},
        }
        plain: dict[str, Any] = json.loads(json.dumps(made, default=str))
        return plain


def fingerprint(path: Path) -> str:
    """Return a fingerprint of the contents of a file or folder; ``absent`` if it does not exist."""
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
    """The record of the finished stages of a run, in a file in its folder.

    Args:
        folder: The folder of the run.

    Attributes:
        told: The stages whose state has been reported.
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
        """Return the outputs of a stage if it is done, else None."""
        record = self._all().get(stage.name)
        if not isinstance(record, dict) or record.get("from") != stage.made_from():
            return None
        there: Mapping[str, str] = record.get("outputs", {})
        if any(fingerprint(Path(path)) != mark for path, mark in there.items()):
            return None
        return [Path(path) for path in there]

    def written(self, but: str) -> list[Path]:
        """Return the recorded outputs of all stages but one, in order."""
        recorded = [record for name, record in self._all().items() if name != but and isinstance(record, dict)]
        return sorted({Path(path) for record in recorded for path in record.get("outputs", {})})

    def why(self, stage: Stage) -> str:
        """Say in a few words why a stage is not done."""
        record = self._all().get(stage.name)
        if not isinstance(record, dict):
            return "not done yet"
        now, before = stage.made_from(), record.get("from", {})
        changed = [part for part in ("words", "settings", "inputs") if now[part] != before.get(part)]
        return f"other {' and '.join(changed)} than before" if changed else "its outputs are not as they were written"

    def add(self, stage: Stage, outputs: Sequence[Path], made_from: Mapping[str, Any]) -> None:
        """Record that a stage is done."""
        marks = {str(path): fingerprint(path) for path in outputs}
        held = self._all() | {stage.name: {"from": dict(made_from), "outputs": marks}}
        write_text(self.path, json.dumps(held, indent=2) + "\n")
