"""SNEMI3D: mouse cortex at 30x6x6 nm, neuron ids (the challenge of ISBI 2013; Kasthuri et al. 2015).

Ids `train` and `test`, in ``<data_dir>/snemi3d/<id>``: ``img.h5``, ``seg.h5``, ``msk_train.h5`` and ``msk_val.h5``
(the last sections). File names vary between copies of the challenge: ``deepem prepare snemi3d --files img=FILE
seg=FILE`` converts your copy to what this module reads, or ``--files`` names files that lie in these folders
unchanged. `test` has no labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.challenges import CHALLENGES, load

data_info = CHALLENGES["snemi3d"].table("snemi3d")
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
        data_dir: The folder above ``snemi3d``.
        data_ids: Ids, by default all.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        files: names of files in the folder of each volume, such as img=raw.tif seg=labels.tif
    """
    return load("snemi3d", data_dir, data_ids, labels, files, lazy)
