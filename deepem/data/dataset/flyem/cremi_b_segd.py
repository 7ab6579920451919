"""CREMI sample B at mip 1 with eroded borders; another choice of glia cells than `cremi_b_mip1`."""

from __future__ import annotations

from collections.abc import Mapping

from deepem.data.dataset.flyem.cremi_b import FOLDER
from deepem.data.dataset.flyem.cremi_b_mip1 import without_glia
from deepem.data.readers import reader_with_glia_mask
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
load_data = reader_with_glia_mask(data_info, without_glia(data_info, GLIA_IDS))
