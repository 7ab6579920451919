"""Synthetic nuclei, generated in memory from their ids without files: touching ellipsoids with blur and noise.

The same id and size give the same voxels anywhere. Sizes, density, contrast and noise are near those of fluorescence
volumes of 284x127x127 nm; shapes are simpler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.labelled_folder import scaled
from deepem.data.synth.nuclei import DARK, make_nuclei
from deepem.utils.errors import InputError

data_info = {f"{kind}{n}": "made from its id" for kind in "nt" for n in range(1, 10)}
splits = {"train": ["n1", "n2"], "val": ["n3"]}


def load_data(
    data_dir: Path | str = "",
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    synth_size: tuple[int, int, int] = (100, 100, 100),
    density: float = 1.0,
    contrast: float = 1.0,
    intensity_low: float | None = None,
    intensity_high: float | None = None,
) -> Mapping[str, Any]:
    """Return volumes by id: img, and seg if requested.

    Args:
        data_dir: Not used.
        data_ids: Ids n1 to n9 and t1 to t9, by default those of `splits`.
        class_keys: Not used.
        labels: Label keys; only seg exists.
        synth_size: size of each synthetic volume, z,y,x voxels
        density: 1 for about 45 nuclei in 100^3 voxels
        contrast: contrast of nuclei against their surroundings
        intensity_low: camera counts up to this become black (default: counts without light)
        intensity_high: camera counts from this on become white (default: 1100)
    """
    if min(synth_size) < 1:
        raise InputError("synth_size", ",".join(map(str, synth_size)), "z,y,x of one voxel or more each")
    low, high = (DARK if intensity_low is None else intensity_low), (intensity_high or 1100.0)
    volumes = {}
    for name in data_ids or [*splits["train"], *splits["val"]]:
        made = make_nuclei(str(name), synth_size, density=density, contrast=contrast)
        volume = {"img": scaled(Path(str(name)), made["img"], low, high)}
        volumes[name] = volume | ({"seg": made["seg"]} if "seg" in labels else {})
    return volumes
