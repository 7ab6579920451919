"""CREMI sample B, the volumes of `cremi_dodam_mip1` and those of `focused_annotation`."""

from __future__ import annotations

from deepem.data.dataset.flyem import cremi_b_mip1, cremi_dodam_mip1, focused_annotation
from deepem.data.readers import reader_with_glia_mask

data_info = {**cremi_b_mip1.data_info, **cremi_dodam_mip1.data_info, **focused_annotation.data_info}
splits = {"train": list(data_info), "val": list(cremi_dodam_mip1.data_info)}
load_data = reader_with_glia_mask(data_info, cremi_b_mip1.without_glia(cremi_b_mip1.data_info, cremi_b_mip1.GLIA_IDS))
