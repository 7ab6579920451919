"""CREMI sample B at mip 1 with eroded borders; another choice of glia cells than `cremi_b_mip1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.dataset.flyem.cremi_b import FOLDER
from deepem.data.dataset.flyem.cremi_b_mip1 import without_glia
from deepem.data.emio import load_files
from deepem.data.table import Row

GLIA_IDS = (151, 177, 705, 1414)
"""Ids of glia cells in ``seg.h5``."""

data_info: Mapping[str, Row] = {
    "cremi_b": {
        "dir": (FOLDER, f"{FOLDER}/cremi_b"),
        "img": "img.h5",
        "seg": "seg_d3_b0.h5",
        "glia": "glia.h5",
        "msk": "msk.h5",
        "loc": True,
    }
}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
    glia_mask: bool = False,
) -> Mapping[str, Any]:
    """Load volumes by id: the image, the requested labels, and the mask.

    Args:
        data_dir: The folder above ``flyem``.
        data_ids: `cremi_b`.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        glia_mask: mask out glia cells
    """
    table = without_glia(data_info, GLIA_IDS) if glia_mask else data_info
    return load_files(table, data_dir, data_ids, labels, lazy=lazy)
