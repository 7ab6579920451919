"""Pinky, mouse visual cortex: the two first volumes, in an older layout. Neuron ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.emio import load_files
from deepem.data.table import rows

VOLUMES = {"stitched_vol19-vol34": "seg msk_train msk_val", "stitched_vol40-vol41": "seg"}

data_info = rows("pinky/ground_truth", VOLUMES, "padded_z32_y512_x512")
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
