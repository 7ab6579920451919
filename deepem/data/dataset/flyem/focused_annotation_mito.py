"""The mitochondria of `focused_annotation_v1` alone, without what is masked out there."""

from __future__ import annotations

from deepem.data.dataset.flyem import focused_annotation_v1 as whole
from deepem.data.readers import reader

data_info = {
    id: {key: row[key] for key in ("dir", "img", "mit", "loc")} | {"msk": "msk.h5"}
    for id, row in whole.data_info.items()
}
load_data = reader(data_info)
