"""`rsunet_act` at half the resolution in y and x: averages patches 1x2x2 and upsamples logits. Takes its flags."""

from __future__ import annotations

from functools import partial

from deepem.models import rsunet_act
from deepem.models.entry import same_size, scaled

create_model = scaled(rsunet_act.create_model, (1, 2, 2))
output_size = partial(same_size, stem=(1, 2, 2))
