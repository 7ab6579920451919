"""Cut-outs that `deepem suggest` chose and that have been annotated since, by round or all together.

``<data_dir>/round<N>.json`` names the cut-outs of a round, and each has a folder beside it::

    round1.json
    r1_000/img.h5          the image, with context around the box to annotate
           draft_mit.h5    the prediction, to be corrected
           mit.h5          the annotation, of the image's size; only the box counts
           msk.h5          optional: 0 where the annotator did not decide

If a label's file is missing, the label is not annotated, and its task is masked out. The ids are ``all``; ``val``,
every fifth cut-out; ``train``, the rest; and ``round1`` to ``round99``, which --train_prob can weigh.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepem.data.emio import imread
from deepem.utils.errors import InputError

ROUNDS = 99
HELD_OUT = 5

data_info = {"all": "every round", "train": "four of five", "val": "every fifth"} | {
    f"round{n}": "one round" for n in range(1, ROUNDS + 1)
}
splits = {"train": ["train"], "val": ["val"]}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> Mapping[str, Any]:
    """Load cut-outs by id: the image, labels, and the mask of the annotated box.

    Args:
        data_dir: Folder of the rounds.
        data_ids: The ids to load.
        class_keys: Not used.
        labels: Label keys, such as seg and mit.
    """
    folder = Path(data_dir)
    ids = data_ids or ["all"]
    rows = {number: rows_of(folder, number) for number in rounds(folder)}
    if not rows:
        raise InputError(folder, "no round1.json", "a folder that deepem suggest wrote")
    found: dict[str, dict[str, Any]] = {}
    for word in ids:
        chosen = [
            row for number, part in rows.items() for row in part if word in ("all", "train", "val", f"round{number}")
        ]
        made = {row["id"]: cut for row in chosen if (cut := cut_out(folder, row, labels)) is not None}
        found[word] = _part(made, word)
        if not found[word]:
            wanted = " or ".join(f"{label}.h5" for label in labels) or "img.h5"
            raise InputError(f"{folder}: {word}", f"no annotated cut-out of {len(chosen)}", f"{wanted} in its folder")
    return found


def _part(made: dict[str, Any], word: str) -> dict[str, Any]:
    if word not in ("train", "val"):
        return made
    names = list(made)
    held = set(names[HELD_OUT - 1 :: HELD_OUT]) or set(names[1:][-1:])
    return {name: made[name] for name in names if (name in held) == (word == "val")}


def rounds(folder: Path) -> list[int]:
    """Return the numbers of the rounds in a folder."""
    numbers = [path.stem.removeprefix("round") for path in folder.glob("round*.json")]
    return sorted(int(number) for number in numbers if number.isdigit())


def rows_of(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return the cut-outs listed in a round's manifest.

    Raises:
        InputError: The file is not a manifest.
    """
    path = folder / f"round{number}.json"
    try:
        rows = json.loads(path.read_text())["cutouts"]
        if not all({"id", "offset", "size", "context"} <= row.keys() for row in rows):
            raise KeyError("id, offset, size, context")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(path, error, "a manifest that deepem suggest wrote") from error
    return list(rows)


def cut_out(folder: Path, row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any] | None:
    """Load one cut-out; return None if none of the labels is annotated."""
    place = folder / row["id"]
    files = {label: place / f"{label}.h5" for label in labels}
    there = {label: file for label, file in files.items() if file.is_file()}
    if labels and not there:
        return None
    image = imread(place / "img.h5")
    known = np.zeros(image.shape[-3:], np.uint8)
    known[tuple(slice(c, c + n) for c, n in zip(row["context"], row["size"], strict=True))] = 1
    if (mask := place / "msk.h5").is_file():
        known *= imread(mask) > 0
    found: dict[str, Any] = {"img": image, "msk": known}
    for label, file in there.items():
        found[label] = imread(file)
        if found[label].shape[-3:] != known.shape:
            raise InputError(file, f"an annotation of {found[label].shape[-3:]} voxels", f"{known.shape}, as the image")
    return found
