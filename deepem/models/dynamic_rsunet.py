"""A residual symmetric U-Net that refines its own feature maps over several passes.

The output maps of the core are fed back to its input. Each pass has its own batch norms, and the heads are trained on
every pass.
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
    """Build the network that runs in every pass.

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
