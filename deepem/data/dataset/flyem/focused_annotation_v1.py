"""The volumes of `focused_annotation` with mitochondria, and with more glia and a dark cell masked out.

A volume without ``mit.h5`` has no mitochondria, one without ``glia.h5`` no glia.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepem.data.dataset.flyem import focused_annotation as first
from deepem.data.emio import load_files
from deepem.data.table import plus

MASKED = {
    "vol003": (78, 79, 80, 84, 85, 87, 89, 93, 97, 101),
    "vol004": (1,),
    "vol005": (1,),
    "vol006": (108, 122),
    "vol008": (62, 74, 75, 76, 77, 79, 80),
    "vol009": (52,),
    "vol010": (5, 18, 20, 1),
    "vol011": (37, 38, 40, 42, 43),
}
"""Ids in ``seg.h5`` that are masked out: a rosetta, the oesophagus, glia, a dark cell."""

VOLUMES = plus(first.VOLUMES, "mit", but=("vol001", "vol004"))

data_info = first.table(VOLUMES, ("glia", "mit"), MASKED)


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
