"""`rsunet` at half the resolution in y and x: averages patches 1x2x2 and upsamples logits. Takes its flags."""

from __future__ import annotations

from functools import partial

from deepem.models import rsunet
from deepem.models.entry import same_size, scaled

create_model = scaled(rsunet.create_model, (1, 2, 2))
output_size = partial(same_size, stem=(1, 2, 2))
crops = False  # as in the public code, see rsunet
