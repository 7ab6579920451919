"""NucMM: brains of a zebrafish (EM) and a mouse (micro-CT), instances of nuclei as `seg` (Lin et al. 2021).

Ids `zebrafish_train`, `zebrafish_val`, `mouse_train` and `mouse_val`, in ``<data_dir>/nucmm/<id>``: ``img.h5`` and
``seg.h5``. File names vary between copies of the challenge: ``deepem prepare nucmm --files img=FILE seg=FILE``
converts your copy to what this module reads, or ``--files`` names files that lie in these folders unchanged.
"""

from __future__ import annotations

from deepem.data.challenges import CHALLENGES, challenge_reader

data_info = CHALLENGES["nucmm"].table("nucmm")
splits = {"train": ["zebrafish_train", "mouse_train"], "val": ["zebrafish_val", "mouse_val"]}
load_data = challenge_reader("nucmm")
