"""Minnie, Basil and Pinky, mouse visual cortex at mip 1: neuron ids, myelin, blood vessels, folds.

A volume without a file for myelin or blood vessels has none of them. Where folds are annotated they are masked out for
all tasks but their own.
"""

from __future__ import annotations

from deepem.data.dataset.pinky import mip0_padded_x512_y512_z32 as pinky
from deepem.data.dataset.pinky_basil import mip0_padded_x512_y512_z32 as basil
from deepem.data.readers import reader
from deepem.data.table import Made, Objects, Row, rows

NEGATIVE = ("mye", "blv")
EARLY = {
    "minnie001": "seg mye fld",
    "minnie002": "seg fld",
    "minnie003": "seg mye fld",
    "minnie004": "seg mye fld",
    "minnie005": "seg fld",
    "minnie006": "seg mye fld",
    "minnie007": "seg fld",
    "minnie008": "seg mye",
    "minnie009": "seg mye fld",
    "minnie010": "seg fld",
    "minnie011": "seg",
    "minnie012": "seg",
    "minnie013": "seg mye fld",
    "minnie014": "seg",
    "minnie015": "seg blv",
}
LATE = {
    "minnie016": "seg mye",
    "minnie018": "seg mye fld",
    "minnie019": "seg fld",
    "minnie020": "seg mye fld",
    "minnie021": "seg",
    "minnie022": "seg fld",
    "minnie023": "seg fld",
    "minnie024": "seg mye fld",
    "minnie025": "seg mye fld",
    "minnie026": "seg mye fld",
    "minnie027": "seg",
}


def without_folds(row: Row) -> Row:
    """A row whose folds, where they are annotated, are masked out."""
    if "fld" not in row:
        return row
    return {**row, "msk": Made("msk.h5", without=(Objects("fld.h5"),)), "fld_msk": "msk.h5"}


TABLE = {
    **rows("minnie/ground_truth/mip1/padded_x512_y512_z0", EARLY, negative=NEGATIVE),
    **rows("minnie/ground_truth/mip1/padded_x512_y512_z32", LATE, negative=NEGATIVE),
    **rows("basil/ground_truth/mip1/padded_x512_y512_z32", basil.VOLUMES, negative=NEGATIVE),
    **rows("pinky/ground_truth/mip1/padded_x512_y512_z32", pinky.VOLUMES, negative=NEGATIVE),
}
data_info = {id: without_folds(row) for id, row in TABLE.items()}
splits = {"train": list(data_info), "val": ["stitched_vol19-vol34"]}
load_data = reader(data_info)
