"""Cut-outs of the fly brain in which some objects alone are annotated, at mip 1, with eroded borders.

One id, `sparse_superset`: of svol001 to svol044 those whose folders exist. Background (id 1) and large lamellae (id 3)
are masked out, a membrane swirl (id 2) becomes background.
"""

from __future__ import annotations

from collections.abc import Mapping

from deepem.data.readers import reader
from deepem.data.table import Made, Objects, Row, rows

MEMBERS = rows(
    "flyem/ground_truth/sparse_annotation",
    {f"svol{n:03d}": "" for n in range(1, 45)},
    "mip1/padded_x384_y384_z20",
    seg=Made("seg_d3_b0.h5", without=(Objects("seg.h5", (2,)),)),
    msk=Made("msk.h5", without=(Objects("seg.h5", (1, 3)),)),
)

data_info: Mapping[str, Row] = {"sparse_superset": {"members": MEMBERS}}
load_data = reader(data_info)
