"""Synthetic volumes, made in memory from their ids: nothing is read, nothing is downloaded, every label is there.

The same id and size give the same voxels anywhere. Instances of `seg` touch without a gap; it is 0 only where there
is no cell, in the lumen of the blood vessel and in myelin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.synth.volume import make_volume

data_info = {f"{kind}{n}": "made from its id" for kind in "vt" for n in range(1, 10)}
splits = {"train": ["v1", "v2"], "val": ["v3"]}


def load_data(
    data_dir: Path | str = "",
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    synth_size: tuple[int, int, int] = (40, 512, 512),
) -> Mapping[str, Any]:
    """Volumes by id: the image and those of the labels that are asked for.

    Args:
        data_dir: Not used.
        data_ids: Ids v1 to v9 and t1 to t9, by default those of `splits`.
        class_keys: Not used.
        labels: Label keys, such as seg and mit.
        synth_size: Size of each synthetic volume, z,y,x voxels
    """
    ids = data_ids or [*splits["train"], *splits["val"]]
    volumes = {}
    for word in ids:
        volume = make_volume(word, synth_size)
        volumes[word] = {key: array for key, array in volume.items() if key == "img" or key in labels}
    return volumes
