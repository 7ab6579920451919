"""Basil and Pinky, mouse visual cortex at mip 1: neuron ids, synapses, myelin, blood vessels.

Synapses are a soft target: the probabilities that another network gave. A volume without a file for one of the last
three has none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.dataset.pinky import mip0_padded_x512_y512_z32 as pinky
from deepem.data.dataset.pinky_basil import mip0_padded_x512_y512_z32 as basil
from deepem.data.emio import load_files
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


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
) -> Mapping[str, Any]:
    """Load volumes by id: the image, the requested labels that exist, and the masks."""
    return load_files(data_info, data_dir, data_ids, labels, lazy=lazy)
