"""ISBI 2012: ventral nerve cord of a fly larva at 50x4x4 nm, membranes (Arganda-Carreras et al. 2015).

Ids `train` and `test`, in ``<data_dir>/isbi2012/<id>``: ``img.h5``, ``bdr.h5``, 1 at membranes, and the masks of the
two phases. File names vary between copies of the challenge: ``deepem prepare isbi2012 --files img=FILE
bdr=FILE`` converts your copy to what this module reads, or ``--files`` names files that lie in these folders
unchanged. The challenge draws membranes black; ``prepare`` inverts them. `test` has no labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.challenges import CHALLENGES, load

data_info = CHALLENGES["isbi2012"].table("isbi2012")
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
        data_dir: The folder above ``isbi2012``.
        data_ids: Ids, by default all.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        files: names of files in the folder of each volume, such as img=raw.tif seg=labels.tif
    """
    return load("isbi2012", data_dir, data_ids, labels, files, lazy)
