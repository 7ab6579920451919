"""NucMM: brains of a zebrafish (EM) and a mouse (micro-CT), instances of nuclei as `seg` (Lin et al. 2021).

Ids `zebrafish_train`, `zebrafish_val`, `mouse_train` and `mouse_val`, in ``<data_dir>/nucmm/<id>``: ``img.h5`` and
``seg.h5``. File names vary between copies of the challenge: ``deepem prepare nucmm --files img=FILE seg=FILE``
converts your copy to what this module reads, or ``--files`` names files that lie in these folders unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.challenges import CHALLENGES, load

data_info = CHALLENGES["nucmm"].table("nucmm")
splits = {"train": ["zebrafish_train", "mouse_train"], "val": ["zebrafish_val", "mouse_val"]}


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
        data_dir: The folder above ``nucmm``.
        data_ids: Ids, by default all.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        files: names of files in the folder of each volume, such as img=raw.tif seg=labels.tif
    """
    return load("nucmm", data_dir, data_ids, labels, files, lazy)
