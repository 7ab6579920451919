"""A folder of light-sheet or fluorescence volumes with instance labels, read into memory.

``<data_dir>/<id>/img.tif`` and ``seg.tif``, or ``<data_dir>/img/<id>.tif`` and ``<data_dir>/seg/<id>.tif``, in any
format that is read here: TIFF, zarr, HDF5, N5, numpy. The ids are those that have an image; by default the last one is
evaluated on. Objects of several classes have a table id -> class, ``seg.classes.json``, beside their label volume, or a
label volume for each class (`--inst_labels`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepem.data.emio import imread
from deepem.data.labelled_folder import LABEL, Entry, entries, image_of, labels_of
from deepem.tasks import Task
from deepem.utils.errors import InputError

data_info: Mapping[str, Any] = {}


def ids_in(data_dir: Path | str) -> list[str]:
    """Return the ids of the volumes in a folder.

    Raises:
        InputError: The folder has no volumes.
    """
    found = [entry.name for entry in entries(data_dir)]
    if not found:
        raise InputError("--data_dir", f"{data_dir}, without a volume", "ID/img.tif or img/ID.tif in it")
    return found


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    tasks: Sequence[Task] = (),
    channels: list[int] | None = None,
    inst_labels: list[str] | None = None,
    intensity_low: float | None = None,
    intensity_high: float | None = None,
    voxel_size_nm: tuple[float, float, float] | None = None,
) -> Mapping[str, Any]:
    """Load volumes by id: img, and the requested labels that exist.

    Args:
        data_dir: The folder.
        data_ids: Ids, by default all.
        class_keys: Flags of the chosen tasks.
        labels: Label keys; each is a file beside the image.
        tasks: The chosen rows.
        channels: Channels of the image to use, from 0; all by default.
        inst_labels: A label volume for each class of objects, in place of seg.
        intensity_low: Grey values up to this become black; 0 by default.
        intensity_high: Grey values from this on become white; by default the maximum of the dtype.
        voxel_size_nm: Refuse volumes whose files say another voxel size, z,y,x.
    """
    classes = max((task.channels for task in tasks if task.source == LABEL and task.settable), default=1)
    volumes: dict[str, dict[str, Any]] = {}
    for name in data_ids or ids_in(data_dir):
        entry = Entry(Path(data_dir), str(name))
        _check_voxels(entry, voxel_size_nm)
        volume: dict[str, Any] = {"img": image_of(entry, channels, intensity_low, intensity_high)}
        for label in labels:
            if label == LABEL and (inst_labels or entry.file(LABEL)):
                volume |= labels_of(entry, inst_labels, classes)
            elif label != LABEL and (path := entry.file(label)) is not None:
                volume[label] = imread(path)
        volumes[str(name)] = volume
    return volumes


def _check_voxels(entry: Entry, wanted: tuple[float, float, float] | None) -> None:
    found = entry.voxel_size_nm()
    if wanted is not None and found is not None and not np.allclose(found, wanted):
        raise InputError(entry.need("img"), f"voxels of {found} nm", f"--voxel_size_nm, {wanted}")
