"""Kasthuri et al. 2015, mouse cortex at mip 0: neuron ids with borders of id 0, boundary, myelin.

`seg-m0b` in the public DeepEM. The boundary is where ``segm0b.h5`` has id 0.
"""

from __future__ import annotations

from deepem.data.readers import reader
from deepem.data.table import Made

BASE = "train216_val40_test100/mip0/padded_x0_y0_z0"
FOLDERS = {"train_AC4": "train/AC4", "train_AC3": "train/AC3", "val": "val", "test": "test"}
FILES = {"img": "img.h5", "seg": "segm0b.h5", "bdr": Made("segm0b.h5", inverted=True), "mye": "mye.h5", "msk": "msk.h5"}

data_info = {id: {"dir": f"{BASE}/{folder}", **FILES, "loc": False} for id, folder in FOLDERS.items()}
splits = {"train": ["train_AC4", "train_AC3"], "val": ["val"]}
load_data = reader(data_info)
