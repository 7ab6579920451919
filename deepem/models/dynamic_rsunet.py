"""A residual symmetric U-Net that refines its own feature maps over several passes.

The core's maps are fed back to it, each pass with its own batch norms; the heads learn on every pass.
"""

from __future__ import annotations

from typing import Literal

from deepem.models import emvision
from deepem.models.entry import model_of, same_size
from deepem.models.layers import Unrolled
from deepem.utils.errors import InputError

output_size = same_size


def core(
    width: tuple[int, ...],
    *,
    act: Literal["ReLU", "LeakyReLU", "PReLU", "ELU"] = "ReLU",
    unroll: int = 1,
    checkpointing: bool = False,
) -> emvision.DynamicRSUNet:
    """The network of one pass.

    Args:
        width: Channels per level.
        act: The activation.
        unroll: Number of passes.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    if unroll < 1:
        raise InputError("unroll", unroll, "1 pass or more")
    return emvision.dynamic_rsunet(width, unroll, act, checkpointing=checkpointing)


create_model = model_of(core, model=Unrolled, supervised=False)
