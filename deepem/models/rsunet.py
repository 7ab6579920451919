"""Residual symmetric U-Net with ReLU: the default network.

The signature is written out so that the flags can be read without importing torch.
"""

from __future__ import annotations

from deepem.models.emvision import RSUNet
from deepem.models.entry import same_size, widths
from deepem.models.layers import Model, Spec
from deepem.utils.errors import InputError

output_size = same_size
crops = False  # as in the public code, an output smaller than the patch raises; it is not cropped


def create_model(
    *,
    in_spec: Spec,
    out_spec: Spec,
    cropsz: tuple[float, float, float] | None = None,
    depth: int = 4,
    width: list[int] | None = None,
    group: int = 0,
    act: str = "ReLU",
    zfactor: list[int] | None = None,
    deep_supervision: list[float] | None = None,
    squeeze_excitation: bool = False,
    attention_gates: bool = False,
    checkpointing: bool = False,
) -> Model:
    """Build the network with its input convolution and heads. It does not crop; `rsunet_act` does.

    Args:
        in_spec: The input.
        out_spec: The heads.
        cropsz: Ignored, as in the public code.
        depth: Number of levels, with 16 32 64 128 256 512 channels.
        width: Channels per level; overrides depth.
        group: Channels per group of the group norm; 0 for batch norm.
        act: Must be ReLU; `rsunet_act` has others.
        zfactor: z pooling factor per level, 1 by default.
        deep_supervision: Loss weight of auxiliary heads on coarser levels, finest first.
        squeeze_excitation: Weigh the channels after each block.
        attention_gates: Weigh the skips.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    if act != "ReLU":
        raise InputError("act", act, "ReLU with this model; the model rsunet_act has every activation")
    core = RSUNet(
        widths(depth, width),
        zfactor=zfactor,
        norm="group" if group else "batch",
        group=group,
        up="exact",
        squeeze_excitation=squeeze_excitation,
        attention_gates=attention_gates,
        checkpointing=checkpointing,
    )
    return Model(core, in_spec, out_spec, deep_supervision=deep_supervision)
