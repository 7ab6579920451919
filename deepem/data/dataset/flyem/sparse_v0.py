"""CREMI sample B, the volumes of `focused_annotation`, and the superset of `sparse_annotation`.

By default vol011 is evaluated on, and the rest trained on.
"""

from __future__ import annotations

from deepem.data.dataset.flyem import cremi_b_mip1, focused_annotation, sparse_annotation
from deepem.data.readers import reader_with_glia_mask

data_info = {**cremi_b_mip1.data_info, **focused_annotation.data_info, **sparse_annotation.data_info}
splits = {"train": [id for id in data_info if id != "vol011"], "val": ["vol011"]}
load_data = reader_with_glia_mask(data_info, cremi_b_mip1.without_glia(cremi_b_mip1.data_info, cremi_b_mip1.GLIA_IDS))
