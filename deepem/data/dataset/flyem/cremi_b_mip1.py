"""CREMI sample B at mip 1 with eroded borders, and the glia cells in it by their ids.

The folder is that of `deepem.data.dataset.flyem.cremi_b`, with one mask ``msk.h5``. The boundary is where
``seg_d3_b0.h5`` has id 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from deepem.data.dataset.flyem.cremi_b import FOLDER
from deepem.data.readers import reader_with_glia_mask
from deepem.data.table import Made, Objects, Row

GLIA_IDS = (150, 151, 177, 272, 1032, 1414, 1466, 1813, 1914, 1920, 1937, 2294, 2299, 2541)
"""Ids of glia cells in ``seg.h5``."""

data_info: Mapping[str, Row] = {
    "cremi_b": {
        "dir": (FOLDER, f"{FOLDER}/cremi_b"),
        "img": "img.h5",
        "seg": "seg_d3_b0.h5",
        "bdr": Made("seg_d3_b0.h5", inverted=True),
        "glia": "glia.h5",
        "msk": "msk.h5",
        "loc": True,
    }
}


def without_glia(table: Mapping[str, Row], ids: tuple[int, ...]) -> dict[str, Row]:
    """The rows with glia cells taken out of the mask, which still holds in them for the task of glia itself."""
    mask = Made("msk.h5", without=(Objects("seg.h5", ids),))
    return {id: {**row, "msk": mask, "glia_msk": "msk.h5"} for id, row in table.items()}


load_data = reader_with_glia_mask(data_info, without_glia(data_info, GLIA_IDS))
