"""The volumes of `focused_annotation` with mitochondria, and with more glia and a dark cell masked out.

A volume without ``mit.h5`` has no mitochondria, one without ``glia.h5`` no glia.
"""

from __future__ import annotations

from deepem.data.dataset.flyem import focused_annotation as first
from deepem.data.readers import reader
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
load_data = reader(data_info)
