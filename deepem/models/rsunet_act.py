"""Residual symmetric U-Net with a choice of activation, norm and upsampling; its output is cropped by `cropsz`."""

from __future__ import annotations

from typing import Literal

from deepem.models import emvision
from deepem.models.entry import model_of, same_size

output_size = same_size


def core(
    width: tuple[int, ...],
    *,
    group: int = 0,
    act: Literal["ReLU", "LeakyReLU", "PReLU", "ELU"] = "ReLU",
    negative_slope: float = 0.01,
    init: float = 0.25,
    norm: Literal["batch", "instance", "none"] = "batch",
    upsampling: Literal["bilinear", "nearest", "trilinear"] = "bilinear",
    zfactor: list[int] | None = None,
    squeeze_excitation: bool = False,
    attention_gates: bool = False,
    checkpointing: bool = False,
) -> emvision.RSUNet:
    """Build the network between input convolution and heads.

    Args:
        width: Channels per level.
        group: Channels per group of the group norm; 0 uses the norm given by norm.
        act: Activation.
        negative_slope: Slope of LeakyReLU below zero.
        init: Initial slope of PReLU.
        norm: Normalisation if group is 0.
        upsampling: Upsampling on the way up; bilinear pads the border with zeros, the others repeat it.
        zfactor: z pooling factor per level, 1 by default.
        squeeze_excitation: Weigh the channels after each block.
        attention_gates: Weigh the skips.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    slopes = {"LeakyReLU": {"negative_slope": negative_slope}, "PReLU": {"init": init}}
    return emvision.rsunet_act(
        width,
        act,
        norm="group" if group else None if norm == "none" else norm,
        group=group,
        up="exact" if upsampling == "bilinear" else upsampling,
        zfactor=zfactor,
        squeeze_excitation=squeeze_excitation,
        attention_gates=attention_gates,
        checkpointing=checkpointing,
        **slopes.get(act, {}),
    )


create_model = model_of(core)
