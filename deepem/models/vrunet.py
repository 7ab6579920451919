"""Residual symmetric U-Net with valid convolutions: its output is smaller than the patch.

As in the public code, the residual pairs are padded, so the outer voxels of the output still depend a little on the
border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from deepem.models import emvision
from deepem.models.emvision.rsu import u_shape
from deepem.models.entry import model_of, widths
from deepem.utils.geometry import Vec3


def output_size(
    input_size: Vec3,
    *,
    depth: int = 4,
    width: Sequence[int] | None = None,
    scale_factor: Vec3 = (1, 2, 2),
    **_: object,
) -> Vec3:
    """Output size of a patch: 48,148,148 gives 20,60,60. Raise InputError with the nearest sizes if it does not fit."""
    poolings = len(widths(depth, width)) - 1
    return u_shape(poolings, factors=[scale_factor] * poolings, lost=4).output_size(input_size)


def core(
    width: tuple[int, ...],
    *,
    act: Literal["ReLU", "LeakyReLU", "PReLU", "ELU"] = "ReLU",
    mode: Literal["trilinear", "bilinear", "nearest"] = "trilinear",
    scale_factor: tuple[int, int, int] = (1, 2, 2),
    checkpointing: bool = False,
) -> emvision.RSUNet:
    """Build the network between input convolution and heads.

    Args:
        width: Channels per level.
        act: Activation.
        mode: Upsampling mode; bilinear is the public code's name for trilinear.
        scale_factor: Pooling between levels, z,y,x.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    up = "trilinear" if mode == "bilinear" else mode
    return emvision.vrunet(width, up, scale_factor, act, checkpointing=checkpointing)


create_model = model_of(core, supervised=False)
