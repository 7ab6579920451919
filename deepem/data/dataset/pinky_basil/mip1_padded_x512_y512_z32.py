"""Basil and Pinky, mouse visual cortex at mip 1: neuron ids, synapses, myelin, blood vessels.

Synapses are a soft target: the probabilities that another network gave. A volume without a file for one of the last
three has none of them.
"""

from __future__ import annotations

from deepem.data.dataset.pinky import mip0_padded_x512_y512_z32 as pinky
from deepem.data.dataset.pinky_basil import mip0_padded_x512_y512_z32 as basil
from deepem.data.readers import reader
from deepem.data.table import plus, rows

NEGATIVE = ("syn", "mye", "blv")

data_info = {
    **rows(
        "basil/ground_truth/mip1/padded_x512_y512_z32", plus(basil.VOLUMES, "syn"), negative=NEGATIVE, soft=("syn",)
    ),
    **rows(
        "pinky/ground_truth/mip1/padded_x512_y512_z32",
        plus(pinky.VOLUMES, "syn", but=("vol201", "vol201a")),
        negative=NEGATIVE,
        soft=("syn",),
    ),
}
splits = {"train": list(data_info), "val": ["stitched_vol19-vol34"]}
load_data = reader(data_info)
