"""CREMI: three samples of the fly brain at 40x4x4 nm, and three test samples (https://cremi.org).

Ids A, B and C, with neuron ids, synaptic clefts and the pre- and postsynaptic sites of synapses, and A+, B+ and C+,
images alone; each in ``<data_dir>/cremi/<id>``, where ``deepem prepare cremi --samples A B C`` writes them.
You may add mitochondria and other labels that CREMI lacks, as ``mit.h5`` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from deepem.data.emio import load_files

OPTIONAL = ("bdr", "psd", "mit", "mye", "fld", "blv", "glia")
LABELLED = {
    "seg": "seg.h5",
    "syn": "syn.h5",
    **{label: f"{label}.h5" for label in OPTIONAL},
    "msk_train": "msk_train.h5",
    "msk_val": "msk_val.h5",
    "loc": True,
}

data_info: dict[str, dict[str, Any]] = {
    **{id: {"dir": f"cremi/{id}", "img": "img.h5", **LABELLED} for id in ("A", "B", "C")},
    **{id: {"dir": f"cremi/{id}", "img": "img.h5", "loc": False} for id in ("A+", "B+", "C+")},
}
splits = {"train": ["A", "B", "C"], "val": ["A", "B", "C"]}

FOLDER = "cremi/<id>"
REMEDY = "that folder filled by 'deepem prepare cremi --samples A B C'"
hints = {
    label: f"--aff 1 alone, or {label}.h5 of your own, which CREMI does not have, beside img.h5 in <data_dir>/{FOLDER}"
    for label in OPTIONAL
}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
    cremi_seg: Literal["seg", "seg_d3_b0"] = "seg",
    cremi_syn: Literal["syn", "partners"] = "syn",
) -> Mapping[str, Any]:
    """Load volumes by id: the image, the requested labels that exist, and the masks of both phases.

    Args:
        data_dir: The folder above ``cremi``.
        data_ids: Ids, by default all.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        cremi_seg: use neuron ids that touch (seg), or ids with eroded borders of id 0 (seg_d3_b0)
        cremi_syn: use clefts as synapses (syn), or pre- and postsynaptic sites (partners; --syn_num_channels 2)
    """
    chosen = {"seg": f"{cremi_seg}.h5", "syn": f"{cremi_syn}.h5"}
    table = {id: {**row, **{key: file for key, file in chosen.items() if key in row}} for id, row in data_info.items()}
    return load_files(table, data_dir, data_ids, labels, optional=OPTIONAL, remedy=REMEDY, lazy=lazy)
