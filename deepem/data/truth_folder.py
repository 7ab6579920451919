"""Write the folder of a ground-truth volume in the layout of `deepem.data.dataset.flyem.cremi_b`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.card import FILE as CARD
from deepem.data.card import Card
from deepem.data.emio import imsave
from deepem.utils.errors import InputError

MARK = "SYNTHETIC.txt"
"""File that marks folders of synthetic volumes, which may be overwritten; real volumes are never overwritten."""


def masks(shape: tuple[int, ...], labelled: tuple[slice, slice, slice], share: float = 0.8) -> dict[str, NDArray[Any]]:
    """Return disjoint masks msk_train (first sections of the labelled box) and msk_val (the rest), (Z, Y, X) uint8."""
    first, last, _ = labelled[0].indices(shape[0])
    split = min(max(first + round(share * (last - first)), first + 1), last - 1)
    made = {}
    for key, sections in (("msk_train", slice(first, split)), ("msk_val", slice(split, last))):
        made[key] = np.zeros(shape, np.uint8)
        part = (sections, *labelled[1:])
        made[key][part] = 1
    return made


def write_folder(folder: Path, volumes: Mapping[str, NDArray[Any]], note: str = "", card: Card | None = None) -> None:
    """Write each volume to KEY.h5, all of them or none; `note` marks the folder as synthetic.

    Other files in the folder stay. Real volumes are never overwritten, with one exception: if the folder's card says
    that they were made from the same files with the same settings, missing or damaged files are written again.

    Args:
        folder: The folder to write to.
        volumes: Arrays by key.
        note: Description of a synthetic volume.
        card: Description of real volumes.

    Raises:
        InputError: The folder already holds other real volumes with these names.
    """
    there = [f"{key}.h5" for key in volumes if (folder / f"{key}.h5").exists()]
    synthetic, same = note and (folder / MARK).exists(), card is not None and card.describes(folder)
    if there and not (synthetic or same):
        raise InputError(folder, f"a folder that has {', '.join(there)}", "another folder, or these files moved away")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    beside.mkdir(parents=True)
    try:
        for key, volume in volumes.items():
            attributes = {} if card is None else {"axes": "zyx", "voxel_size_nm": tuple(card.voxel_size_nm)}
            imsave(volume, beside / f"{key}.h5", compress=key != "img", attributes=attributes)
        if note:
            (beside / MARK).write_text(f"{note}\n")
        if card is not None:
            (beside / CARD).write_text(card.written(beside, volumes))
        folder.mkdir(exist_ok=True)
        # Write the image last: if a module finds it, everything else is there.
        for file in sorted(beside.iterdir(), key=lambda file: (file.name == CARD, file.name == "img.h5")):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
