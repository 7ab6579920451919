"""Lucchi et al. 2012: hippocampus at 5 nm (FIB-SEM), mitochondria.

Ids `train` and `test`, in ``<data_dir>/lucchi/<id>``: ``img.h5``, ``mit.h5`` and the masks of the two phases. Which
files the challenge hands out is not told here: ``deepem prepare lucchi --files img=FILE mit=FILE`` converts your
copy to what this module reads, or ``--files`` names files that lie in these folders unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.challenges import CHALLENGES, load

data_info = CHALLENGES["lucchi"].table("lucchi")
splits = {"train": ["train"], "val": ["train"]}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
    files: dict[str, str] | None = None,
) -> Mapping[str, Any]:
    """Load volumes by id: the image, the requested labels that exist, and the masks.

    Args:
        data_dir: The folder above ``lucchi``.
        data_ids: Ids, by default all.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        files: names of files in the folder of each volume, such as img=raw.tif seg=labels.tif
    """
    return load("lucchi", data_dir, data_ids, labels, files, lazy)
