"""Residual symmetric U-Net with a choice of activation, norm and upsampling; it crops its output to `--outputsz`."""

from __future__ import annotations

from typing import Literal

from deepem.models import emvision
from deepem.models.layers import Model, Spec, same_size, widths

output_size = same_size


def create_model(
    *,
    in_spec: Spec,
    out_spec: Spec,
    cropsz: tuple[float, float, float] | None = None,
    depth: int = 4,
    width: list[int] | None = None,
    group: int = 0,
    act: Literal["ReLU", "LeakyReLU", "PReLU", "ELU"] = "ReLU",
    negative_slope: float = 0.01,
    init: float = 0.25,
    norm: Literal["batch", "instance", "none"] = "batch",
    upsampling: Literal["bilinear", "nearest", "trilinear"] = "bilinear",
    zfactor: list[int] | None = None,
    deep_supervision: list[float] | None = None,
    squeeze_excitation: bool = False,
    attention_gates: bool = False,
    checkpointing: bool = False,
) -> Model:
    """The network with its input convolution and heads.

    Args:
        in_spec: The input.
        out_spec: The heads.
        cropsz: Fraction of the patch that the output keeps.
        depth: Number of levels, of 16 32 64 128 256 512 channels.
        width: Channels per level; takes the place of depth.
        group: Channels per group of the group norm; 0 for the norm chosen by --norm.
        act: The activation.
        negative_slope: Of LeakyReLU.
        init: First slope of PReLU.
        norm: Normalisation where there is no group norm.
        upsampling: On the way up; bilinear has zeros beyond the border, the others repeat it.
        zfactor: z pooling factor per level, 1 by default.
        deep_supervision: Loss weight of auxiliary heads on coarser levels, finest first.
        squeeze_excitation: Weigh the channels after each block.
        attention_gates: Weigh the skips.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    options = {"LeakyReLU": {"negative_slope": negative_slope}, "PReLU": {"init": init}}.get(act, {})
    core = emvision.rsunet_act(
        widths(depth, width),
        act,
        zfactor=zfactor,
        norm="group" if group else None if norm == "none" else norm,
        group=group,
        up="exact" if upsampling == "bilinear" else upsampling,
        squeeze_excitation=squeeze_excitation,
        attention_gates=attention_gates,
        checkpointing=checkpointing,
        **options,
    )
    return Model(core, in_spec, out_spec, cropsz=cropsz, deep_supervision=deep_supervision)
