"""MitoEM: cortex of human and rat at 30x8x8 nm, instances of mitochondria (Wei et al. 2020).

Ids `human_train`, `human_val`, `rat_train` and `rat_val`, in ``<data_dir>/mitoem/<id>``: ``img.h5`` and ``mit.h5``,
ids of mitochondria, which also serve as `seg` for instance tasks. File names vary between copies of the challenge:
``deepem prepare mitoem --files img=FILE mit=FILE`` converts your copy to what this module reads, or ``--files`` names
files that lie in these folders unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.challenges import CHALLENGES, load

data_info = CHALLENGES["mitoem"].table("mitoem")
splits = {"train": ["human_train", "rat_train"], "val": ["human_val", "rat_val"]}


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
        data_dir: The folder above ``mitoem``.
        data_ids: Ids, by default all.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        files: names of files in the folder of each volume, such as img=raw.tif seg=labels.tif
    """
    return load("mitoem", data_dir, data_ids, labels, files, lazy)
