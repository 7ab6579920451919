"""Eleven cut-outs of the fly brain around structures that segmentations got wrong, at mip 1, with eroded borders.

Lamellae become background. Rosettas, the oesophagus and some glia cells are masked out. A volume without ``glia.h5``
has no glia.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepem.data.readers import reader
from deepem.data.table import Made, Objects, Row, rows

BASE, INSIDE = "flyem/ground_truth/focused_annotation", "mip1/padded_x512_y512_z20"
LAMELLAE = {"vol001": (287,), "vol011": (52,)}
"""Ids in ``seg.h5`` that become background."""

MASKED = {"vol004": (1,), "vol005": (1,), "vol009": (52,)}
"""Ids in ``seg.h5`` that are masked out: a rosetta, the oesophagus, glia."""

VOLUMES = {f"vol{n:03d}": "" if n in (2, 6) else "glia" for n in range(1, 12)}


def table(volumes: Mapping[str, str], negative: Sequence[str], masked: Mapping[str, tuple[int, ...]]) -> dict[str, Row]:
    """The rows of the volumes, less lamellae and less what is masked out."""
    found = rows(BASE, volumes, INSIDE, negative=negative, seg="seg_d3_b0.h5")
    for id, row in found.items():
        if id in LAMELLAE:
            row = {**row, "seg": Made("seg_d3_b0.h5", without=(Objects("seg.h5", LAMELLAE[id]),))}
        if id in masked:
            row = {**row, "msk": Made("msk.h5", without=(Objects("seg.h5", masked[id]),))}
        found[id] = row
    return found


data_info = table(VOLUMES, ("glia",), MASKED)
load_data = reader(data_info)
