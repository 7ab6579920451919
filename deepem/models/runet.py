"""`rsunet` with the parameter names of the public RUNet."""

from __future__ import annotations

from deepem.models.emvision import RSUNet, RUNet
from deepem.models.entry import model_of, same_size

output_size = same_size


def core(width: tuple[int, ...], *, checkpointing: bool = False) -> RSUNet:
    """Build the network between input convolution and heads.

    Args:
        width: Channels per level.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    return RUNet(width, checkpointing=checkpointing)


create_model = model_of(core)
