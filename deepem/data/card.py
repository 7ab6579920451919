"""The card of prepared volumes: what they are, where they came from, and what was written."""

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
"""Labels of which instances are counted; of the others, positive voxels."""


@dataclass(frozen=True)
class Card:
    """What is known of volumes before they are made.

    Attributes:
        name: Of the data set.
        id: Of the volume.
        voxel_size_nm: (z, y, x), as prepared.
        source: Where the data come from.
        licence: Of the data.
        inputs: The checksum of every file that the volumes are made from, by its name.
        settings: What else decides them.
    """

    name: str
    id: str
    voxel_size_nm: Sequence[float]
    source: str
    licence: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Plain values, as they come back from a file."""
        fields = {**vars(self), "voxel_size_nm": list(self.voxel_size_nm), "axes": "zyx"}
        plain: dict[str, Any] = json.loads(json.dumps(fields))
        return plain

    def describes(self, folder: Path) -> bool:
        """Whether a folder holds volumes made from these files with these settings, whole or not."""
        found = read(folder)
        return found is not None and all(found.get(key) == self.plain()[key] for key in ("inputs", "settings", "id"))

    def written(self, folder: Path, volumes: Mapping[str, NDArray[Any]]) -> str:
        """The card's text, once the volumes are files in a folder."""
        arrays = {key: {**about(key, array), "sha256": digest(folder / f"{key}.h5")} for key, array in volumes.items()}
        there = [task.flag for task in TASKS if any(source in volumes for source in task.sources)]
        return json.dumps({**self.plain(), "tasks": there, "arrays": arrays}, indent=2) + "\n"


def about(key: str, array: NDArray[Any]) -> dict[str, Any]:
    """Shape, type and counts of an array."""
    told: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if key in IDS:
        ids = np.unique(array)
        return told | {"instances": int(np.count_nonzero(ids > 0)), "labelled": float((array > 0).mean())}
    if key == "img":
        return told | {"least": float(array.min()), "greatest": float(array.max()), "mean": float(array.mean())}
    return told | {"positive": float((array > 0).mean())}


def read(folder: Path) -> dict[str, Any] | None:
    """The card in a folder, or None where there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def lacking(folder: Path) -> list[str]:
    """The arrays of a folder's card whose files are not there, or are not what was written."""
    arrays: Mapping[str, Any] = (read(folder) or {}).get("arrays", {})
    return [key for key, told in arrays.items() if not _is(folder / f"{key}.h5", told["sha256"])]


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and digest(file) == sha256


def in_words(folder: Path, keys: Iterable[str] | None = None) -> str:
    """The card in a line: size, arrays and tasks."""
    found = read(folder) or {}
    arrays: Mapping[str, Any] = found.get("arrays", {})
    size = "x".join(map(str, arrays["img"]["shape"])) if "img" in arrays else "no"
    return f"{', '.join(keys or arrays)}, {size} voxels; trains {', '.join(found.get('tasks', ())) or 'nothing'}"
