"""Pinky, mouse visual cortex: the two first volumes, in an older layout. Neuron ids."""

from __future__ import annotations

from deepem.data.readers import reader
from deepem.data.table import rows

VOLUMES = {"stitched_vol19-vol34": "seg msk_train msk_val", "stitched_vol40-vol41": "seg"}

data_info = rows("pinky/ground_truth", VOLUMES, "padded_z32_y512_x512")
splits = {"train": list(data_info), "val": ["stitched_vol19-vol34"]}
load_data = reader(data_info)
