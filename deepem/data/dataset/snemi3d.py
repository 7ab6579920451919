"""SNEMI3D: mouse cortex at 30x6x6 nm, neuron ids (the challenge of ISBI 2013; Kasthuri et al. 2015).

Ids `train` and `test`, in ``<data_dir>/snemi3d/<id>``: ``img.h5``, ``seg.h5``, ``msk_train.h5`` and ``msk_val.h5``
(the last sections). File names vary between copies of the challenge: ``deepem prepare snemi3d --files img=FILE
seg=FILE`` converts your copy to what this module reads, or ``--files`` names files that lie in these folders
unchanged. `test` has no labels.
"""

from __future__ import annotations

from deepem.data.challenges import CHALLENGES, challenge_reader

data_info = CHALLENGES["snemi3d"].table("snemi3d")
splits = {"train": ["train"], "val": ["train"]}
load_data = challenge_reader("snemi3d")
