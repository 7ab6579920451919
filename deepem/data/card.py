"""The card of prepared volumes: a file that says what they are, where they came from, and what was written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.io.download import digest
from deepem.tasks import TASKS

FILE = "card.json"
IDS = ("seg",)
"""Labels whose instances are counted; for other labels, positive voxels are counted."""


@dataclass(frozen=True)
class Card:
    """What is known about volumes before they are made.

    Attributes:
        name: Name of the data set.
        id: Id of the volume.
        voxel_size_nm: (z, y, x) voxel size after preparation.
        source: Where the data come from.
        licence: Licence of the data.
        inputs: Checksum of every input file, by file name.
        settings: All other settings that determine the volumes.
    """

    name: str
    id: str
    voxel_size_nm: Sequence[float]
    source: str
    licence: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return plain values, equal to those read back from a file."""
        fields = {**vars(self), "voxel_size_nm": list(self.voxel_size_nm), "axes": "zyx"}
        plain: dict[str, Any] = json.loads(json.dumps(fields))
        return plain

    def describes(self, folder: Path) -> bool:
        """Whether a folder holds volumes (complete or not) made from these files with these settings."""
        found = read(folder)
        return found is not None and all(found.get(key) == self.plain()[key] for key in ("inputs", "settings", "id"))

    def written(self, folder: Path, volumes: Mapping[str, NDArray[Any]]) -> str:
        """Return the card's text; the volumes must have been written to the folder already."""
        arrays = {key: {**about(key, array), "sha256": digest(folder / f"{key}.h5")} for key, array in volumes.items()}
        there = [task.flag for task in TASKS if any(source in volumes for source in task.sources)]
        return json.dumps({**self.plain(), "tasks": there, "arrays": arrays}, indent=2) + "\n"


def about(key: str, array: NDArray[Any]) -> dict[str, Any]:
    """Return the shape, dtype and counts of an array."""
    told: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if key in IDS:
        ids = np.unique(array)
        return told | {"instances": int(np.count_nonzero(ids > 0)), "labelled": float((array > 0).mean())}
    if key == "img":
        return told | {"least": float(array.min()), "greatest": float(array.max()), "mean": float(array.mean())}
    return told | {"positive": float((array > 0).mean())}


def read(folder: Path) -> dict[str, Any] | None:
    """Read the card in a folder; return None if there is no readable card."""
    try:
        found = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def lacking(folder: Path) -> list[str]:
    """Return the arrays on a folder's card whose files are missing or have changed since they were written."""
    arrays: Mapping[str, Any] = (read(folder) or {}).get("arrays", {})
    return [key for key, told in arrays.items() if not _is(folder / f"{key}.h5", told["sha256"])]


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and digest(file) == sha256


def in_words(folder: Path, keys: Iterable[str] | None = None) -> str:
    """Summarise the card in one line: size, arrays and tasks."""
    found = read(folder) or {}
    arrays: Mapping[str, Any] = found.get("arrays", {})
    size = "x".join(map(str, arrays["img"]["shape"])) if "img" in arrays else "no"
    return f"{', '.join(keys or arrays)}, {size} voxels; trains {', '.join(found.get('tasks', ())) or 'nothing'}"
