"""MitoEM: cortex of human and rat at 30x8x8 nm, instances of mitochondria (Wei et al. 2020).

Ids `human_train`, `human_val`, `rat_train` and `rat_val`, in ``<data_dir>/mitoem/<id>``: ``img.h5`` and ``mit.h5``,
ids of mitochondria, which also serve as `seg` for instance tasks. File names vary between copies of the challenge:
``deepem prepare mitoem --files img=FILE mit=FILE`` converts your copy to what this module reads, or ``--files`` names
files that lie in these folders unchanged.
"""

from __future__ import annotations

from deepem.data.challenges import CHALLENGES, challenge_reader

data_info = CHALLENGES["mitoem"].table("mitoem")
splits = {"train": ["human_train", "rat_train"], "val": ["human_val", "rat_val"]}
load_data = challenge_reader("mitoem")
