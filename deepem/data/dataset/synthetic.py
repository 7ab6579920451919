"""Synthetic volumes, generated in memory from their ids: no files, no downloads, and all labels.

The same id and size give the same voxels on any machine. Instances of `seg` touch without a gap; the lumen of the blood
vessel is an instance too, and only myelin is 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deepem.data.synth.volume import make_volume
from deepem.utils.errors import InputError

data_info = {f"{kind}{n}": "made from its id" for kind in "vt" for n in range(1, 10)}
splits = {"train": ["v1", "v2"], "val": ["v3"]}


def load_data(
    data_dir: Path | str = "",
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    synth_size: tuple[int, int, int] = (32, 512, 512),
) -> Mapping[str, Any]:
    """Make volumes by id: the image and the requested labels.

    Args:
        data_dir: Not used.
        data_ids: Ids v1 to v9 and t1 to t9, by default those of `splits`.
        class_keys: Not used.
        labels: Label keys, such as seg and mit.
        synth_size: size of each synthetic volume, z,y,x voxels
    """
    if min(synth_size) < 1:
        raise InputError("synth_size", ",".join(map(str, synth_size)), "z,y,x of one voxel or more each")

    def make(word: str) -> Mapping[str, Any]:
        return {key: array for key, array in make_volume(word, synth_size).items() if key in ("img", *labels)}

    ids = data_ids or [*splits["train"], *splits["val"]]
    with ThreadPoolExecutor(min(len(ids), os.cpu_count() or 1)) as pool:
        return dict(zip(ids, pool.map(make, ids), strict=True))
