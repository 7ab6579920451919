"""Pinky, mouse visual cortex at mip 0: neuron ids, postsynaptic densities, myelin, blood vessels.

A volume without a file for one of the last three has none of them. `vol201a` and `vol501a` are the volumes without
the ``a`` under a larger mask.
"""

from __future__ import annotations

from collections.abc import Sequence

from deepem.data.readers import reader
from deepem.data.table import plus, rows

VOLUMES = {
    "stitched_vol19-vol34": "seg msk_train msk_val",
    "stitched_vol40-vol41": "seg",
    "vol101": "seg blv",
    "vol102": "seg",
    "vol103": "seg",
    "vol104": "seg",
    "vol401": "seg mye blv",
    "vol501": "seg msk=msk.d128.h5",
    "vol501a": "seg",
    "vol502": "seg mye",
    "vol503": "seg blv",
    "vol201": "seg msk=msk.d128.h5 blv",
    "vol201a": "seg blv",
}
"""What every level has of each volume of Pinky."""

PSD_MASK = ("stitched_vol40-vol41", "vol101", "vol102", "vol103", "vol104")
"""Volumes with a mask of their own for postsynaptic densities."""


def with_psd(but: Sequence[str]) -> dict[str, str]:
    """The volumes with postsynaptic densities, and the masks of these."""
    return plus(plus(VOLUMES, "psd", but), "psd_msk", [id for id in VOLUMES if id not in PSD_MASK])


data_info = rows(
    "pinky/ground_truth/mip0/padded_x512_y512_z32",
    with_psd(("vol501", "vol501a", "vol201", "vol201a")),
    negative=("psd", "mye", "blv"),
)
splits = {"train": list(data_info), "val": ["stitched_vol19-vol34"]}
load_data = reader(data_info)
