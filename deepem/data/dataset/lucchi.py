"""Lucchi et al. 2012: hippocampus at 5 nm (FIB-SEM), mitochondria.

Ids `train` and `test`, in ``<data_dir>/lucchi/<id>``: ``img.h5``, ``mit.h5`` and the masks of the two phases. Which
files the challenge hands out is not told here: ``deepem prepare lucchi --files img=FILE mit=FILE`` converts your
copy to what this module reads, or ``--files`` names files that lie in these folders unchanged.
"""

from __future__ import annotations

from deepem.data.challenges import CHALLENGES, challenge_reader

data_info = CHALLENGES["lucchi"].table("lucchi")
splits = {"train": ["train"], "val": ["train"]}
load_data = challenge_reader("lucchi")
