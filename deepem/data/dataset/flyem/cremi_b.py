"""CREMI sample B: a cut-out of the fly brain, serial section EM at 40x8x8 nm (https://cremi.org).

One id, `cremi_b`, in ``<data_dir>/flyem/ground_truth/cremi_b/mip1/padded_x256_y256_z16``: the image with tissue around
what is labelled, neuron ids, and masks of the sections to train and to evaluate on. ``deepem prepare cremi`` makes
this folder from CREMI's file; ``deepem synthesize --layout cremi_b`` fills it with synthetic tissue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deepem.data.emio import load_files
from deepem.utils.errors import InputError

FOLDER = "flyem/ground_truth/cremi_b/mip1/padded_x256_y256_z16"
OPTIONAL = ("bdr", "syn", "psd", "mit", "mye", "fld", "blv", "glia")

data_info = {
    "cremi_b": {
        "dir": FOLDER,
        "img": "img.h5",
        "seg": "seg.h5",
        **{label: f"{label}.h5" for label in OPTIONAL},
        "msk_train": "msk_train.h5",
        "msk_val": "msk_val.h5",
        "loc": True,
    }
}
splits = {"train": ["cremi_b"], "val": ["cremi_b"]}

REMEDY = (
    "that folder filled by 'deepem prepare cremi' (CREMI sample B) or "
    "'deepem synthesize --layout cremi_b' (synthetic tissue)"
)
hints = {
    label: f"--aff 1 alone, or {label}.h5 of your own, which CREMI does not have, beside img.h5 in <data_dir>/{FOLDER}"
    for label in OPTIONAL
    if label != "syn"
} | {"syn": f"syn.h5 ('deepem prepare cremi' makes it of CREMI's clefts) beside img.h5 in <data_dir>/{FOLDER}"}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
    cremi_seg: Literal["seg", "seg_d3_b0"] = "seg",
    glia_mask: bool = False,
) -> Mapping[str, Any]:
    """Load the volume: img, the requested labels that exist, msk_train and msk_val; patches are centred in the masks.

    Args:
        data_dir: The folder above ``flyem``.
        data_ids: `cremi_b`, in any case.
        class_keys: Flags of the chosen tasks.
        labels: Label keys. All but seg may be absent.
        lazy: Leave the arrays on disk.
        cremi_seg: use neuron ids that touch (seg), or ids with eroded borders of id 0 (seg_d3_b0)
        glia_mask: mask out the voxels of glia.h5
    """
    row = {**data_info["cremi_b"], "seg": f"{cremi_seg}.h5"}
    wanted = {*labels, "glia"} if glia_mask else labels
    optional = set(OPTIONAL) - ({"glia"} if glia_mask else set())
    files = load_files({"cremi_b": row}, data_dir, None, wanted, optional=optional, remedy=REMEDY, lazy=lazy)
    volume = files["cremi_b"]
    if glia_mask:
        if "glia" in class_keys:
            raise InputError("glia_mask", "together with the task glia", "one of the two: the mask hides the glia")
        for key in ("msk_train", "msk_val"):
            volume[key] = np.where(volume["glia"] > 0, 0, volume[key])
    return {"cremi_b": volume}
