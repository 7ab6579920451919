"""CREMI sample B and the volumes of `focused_annotation_v1`."""

from __future__ import annotations

from deepem.data.dataset.flyem import cremi_b_mip1, focused_annotation_v1
from deepem.data.readers import reader_with_glia_mask

data_info = {**cremi_b_mip1.data_info, **focused_annotation_v1.data_info}
load_data = reader_with_glia_mask(data_info, cremi_b_mip1.without_glia(cremi_b_mip1.data_info, cremi_b_mip1.GLIA_IDS))
