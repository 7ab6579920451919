"""The mitochondria of `focused_annotation_v1` alone, without what is masked out there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.dataset.flyem import focused_annotation_v1 as whole
from deepem.data.emio import load_files

data_info = {
    id: {key: row[key] for key in ("dir", "img", "mit", "loc")} | {"msk": "msk.h5"}
    for id, row in whole.data_info.items()
}


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
