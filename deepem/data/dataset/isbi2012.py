"""ISBI 2012: ventral nerve cord of a fly larva at 50x4x4 nm, membranes (Arganda-Carreras et al. 2015).

Ids `train` and `test`, in ``<data_dir>/isbi2012/<id>``: ``img.h5``, ``bdr.h5``, 1 at membranes, and the masks of the
two phases. File names vary between copies of the challenge: ``deepem prepare isbi2012 --files img=FILE
bdr=FILE`` converts your copy to what this module reads, or ``--files`` names files that lie in these folders
unchanged. The challenge draws membranes black; ``prepare`` inverts them. `test` has no labels.
"""

from __future__ import annotations

from deepem.data.challenges import CHALLENGES, challenge_reader

data_info = CHALLENGES["isbi2012"].table("isbi2012")
splits = {"train": ["train"], "val": ["train"]}
load_data = challenge_reader("isbi2012")
