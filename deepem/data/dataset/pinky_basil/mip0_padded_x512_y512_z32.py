"""Basil and Pinky, mouse visual cortex at mip 0: neuron ids, postsynaptic densities, myelin, blood vessels.

A volume without a file for one of the last three has none of them.
"""

from __future__ import annotations

from deepem.data.dataset.pinky import mip0_padded_x512_y512_z32 as pinky
from deepem.data.readers import reader
from deepem.data.table import plus, rows

VOLUMES = {
    "vol001": "seg msk=msk.d128.h5 blv",
    "vol001a": "seg blv",
    "vol002": "seg msk=msk.d128.h5",
    "vol002a": "seg",
    "vol003": "seg mye",
    "vol004": "seg",
    "vol005": "seg mye",
    "vol006": "seg",
    "vol008": "seg",
    "vol011": "seg",
}
"""What every level has of each volume of Basil."""

NEGATIVE = ("psd", "mye", "blv")

data_info = {
    **rows("basil/ground_truth/mip0/padded_x512_y512_z32", plus(VOLUMES, "psd"), negative=NEGATIVE),
    **rows("pinky/ground_truth/mip0/padded_x512_y512_z32", pinky.with_psd(("vol201", "vol201a")), negative=NEGATIVE),
}
splits = {"train": list(data_info), "val": ["stitched_vol19-vol34"]}
load_data = reader(data_info)
