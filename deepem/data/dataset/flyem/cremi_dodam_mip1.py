"""CREMI's samples A, B and C as DeepEM's folders `cremi_dodam` hold them, at mip 1: neuron ids, borders of id 0.

Sections to train and to evaluate on are apart, by ``msk_train.h5`` and ``msk_val.h5``.
"""

from __future__ import annotations

from deepem.data.readers import reader
from deepem.data.table import rows

VOLUMES = {f"cremi_dodam_{sample}": "seg=seg_b0.h5 msk_train msk_val" for sample in "abc"}

data_info = rows("flyem/ground_truth", VOLUMES, "mip1/padded_x0_y0_z0")
splits = {"train": list(data_info), "val": list(data_info)}
load_data = reader(data_info)
