"""CREMI sample B, the volumes of `cremi_dodam_mip1` and those of `focused_annotation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.dataset.flyem import cremi_b_mip1, cremi_dodam_mip1, focused_annotation
from deepem.data.emio import load_files

data_info = {**cremi_b_mip1.data_info, **cremi_dodam_mip1.data_info, **focused_annotation.data_info}
splits = {"train": list(data_info), "val": list(cremi_dodam_mip1.data_info)}


def load_data(
    data_dir: Path | str,
    data_ids: Sequence[str] | None = None,
    *,
    class_keys: Sequence[str] = (),
    labels: Sequence[str] = (),
    lazy: bool = False,
    glia_mask: bool = False,
) -> Mapping[str, Any]:
    """Load volumes by id: the image, the requested labels that exist, and the masks.

    Args:
        data_dir: The folder above ``flyem``.
        data_ids: Ids of the joined modules.
        class_keys: Not used.
        labels: Label keys.
        lazy: Leave the arrays on disk.
        glia_mask: mask out glia cells
    """
    cremi = cremi_b_mip1.without_glia(cremi_b_mip1.data_info, cremi_b_mip1.GLIA_IDS) if glia_mask else {}
    return load_files({**data_info, **cremi}, data_dir, data_ids, labels, lazy=lazy)
