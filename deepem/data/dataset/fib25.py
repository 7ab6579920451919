"""FIB-25: 140x250x250 voxels of fly medulla at 10 nm (FIB-SEM), neuron instances that touch without a gap.

``<data_dir>/fib25/img.h5`` and ``seg.h5``: a relabelled cut-out of the FlyEM project (HHMI Janelia; Creative Commons
Attribution), from the neuroproof examples. Membranes are not marked: the task bdr trains on the contacts of instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.emio import load_files

data_info = {"all": (0, 140), "train": (0, 100), "val": (100, 140)}
"""The sections of each id, from and to."""

splits = {"train": ["train"], "val": ["val"]}

FILES = {"fib25": {"dir": "fib25", "img": "img.h5", "seg": "seg.h5"}}
REMEDY = "these two: a cut-out of 140x250x250 voxels and its neuron instances"
hints = {label: "a module with a file for it: FIB-25 has neuron instances only" for label in ("syn", "psd", "mit")}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
) -> Mapping[str, Any]:
    """Return volumes by id: img, and seg if requested; `all` holds the voxels of `train` and `val`.

    Args:
        data_dir: The folder that holds ``fib25``.
        data_ids: Of all, train and val; by default all three.
        class_keys: Not used.
        labels: Label keys; only seg exists.
        lazy: Leave the arrays on disk.
    """
    volume = load_files(FILES, data_dir, None, labels, remedy=REMEDY, lazy=lazy)["fib25"]
    arrays = {key: array for key, array in volume.items() if key in ("img", "seg")}
    return {id: {key: a[slice(*data_info[id])] for key, a in arrays.items()} for id in data_ids or data_info}
