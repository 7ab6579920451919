"""The folder of a ground-truth volume in the layout of `deepem.data.dataset.flyem.cremi_b`, written whole."""

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
"""Lies in folders of synthetic volumes, which may be written again; real ones are never overwritten."""


def masks(shape: tuple[int, ...], labelled: tuple[slice, slice, slice], share: float = 0.8) -> dict[str, NDArray[Any]]:
    """Disjoint masks msk_train and msk_val, (Z, Y, X) uint8: the first sections of the labelled box, and the rest."""
    first, last, _ = labelled[0].indices(shape[0])
    split = min(max(first + round(share * (last - first)), first + 1), last - 1)
    made = {}
    for key, sections in (("msk_train", slice(first, split)), ("msk_val", slice(split, last))):
        made[key] = np.zeros(shape, np.uint8)
        part = (sections, *labelled[1:])
        made[key][part] = 1
    return made


def write_folder(folder: Path, volumes: Mapping[str, NDArray[Any]], note: str = "", card: Card | None = None) -> None:
    """Write key.h5 for every volume, all of them or none; `note` marks the folder as synthetic.

    Files of other names in the folder stay. Where the folder holds real volumes nothing is written, but what its card
    says was made from the same files with the same settings is made whole again.

    Args:
        folder: Where they go.
        volumes: Arrays by key.
        note: What is said of a synthetic volume.
        card: What is said of a real one.

    Raises:
        InputError: other real volumes of these names are there already.
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
        # The image comes last: a module that finds it finds everything else.
        for file in sorted(beside.iterdir(), key=lambda file: (file.name == CARD, file.name == "img.h5")):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
