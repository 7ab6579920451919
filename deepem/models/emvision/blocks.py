"""Building blocks of all networks here, in the order norm, activation, convolution.

    layer      norm - act - conv
    block      layer "pre" - (+) residual of two layers "res" - layer "post" [- squeeze "se"]
    level up   upsample, 1x1x1 conv - (+) skip - block

Child modules have the names of the public checkpoints. Forward functions take `turn`, the number of the pass in an
unrolled network, which selects the batch norm of a layer. Networks that are not unrolled ignore it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deepem.models.emvision.layers import UPSAMPLING, activation, gain, normalisation
from deepem.models.emvision.utils import Triple, crop3d_center, pad_size
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class Style:
    """Settings that all layers of a network share.

    Attributes:
        norm: batch, group, instance or None.
        group: Channels per group of the group norm.
        act: ReLU, LeakyReLU, PReLU or ELU, with its arguments in `act_options`.
        layout: Name of the child module that holds norm and activation of a layer; "" if they are next to the
            convolution.
        bias: Whether convolutions have a bias.
        turns: Batch norms per layer of an unrolled network, one per pass; 0 for other networks.
        up: A key of UPSAMPLING.
        valid: Whether the convolutions "pre" and "post" have no padding.
        squeeze: Whether every block ends with squeeze-excitation.
        gates: Whether every skip passes through an attention gate.
    """

    norm: str | None = "batch"
    group: int = 16
    act: str = "ReLU"
    act_options: Mapping[str, float] = field(default_factory=dict)
    layout: str = "norm_relu"
    bias: bool = False
    turns: int = 0
    up: str = "bilinear"
    valid: bool = False
    squeeze: bool = False
    gates: bool = False


class Steps(nn.Sequential):
    """Sequence of named modules that passes `turn` to those that take it."""

    def __init__(self, steps: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__(OrderedDict(steps))

    def forward(self, x: Tensor, turn: int = 0) -> Tensor:
        """Apply all steps to a feature map (N, C, Z, Y, X)."""
        for step in self:
            x = step(x, turn) if isinstance(step, (Steps, Residual, Turns)) else step(x)
        return x


class Turns(nn.Module):
    """One batch norm per pass, one activation."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.bn = nn.ModuleList(nn.BatchNorm3d(channels) for _ in range(style.turns))
        self.act = activation(style.act, inplace=True, **style.act_options)

    def forward(self, x: Tensor, turn: int = 0) -> Tensor:
        """Only the batch norm of this pass sees x, so only it gets statistics and gradients."""
        return self.act(self.bn[turn](x))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two layers with a residual connection."""

    def __init__(self, channels: int, kernel: Triple, style: Style) -> None:
        super().__init__()
        self.conv1 = layer(channels, channels, kernel, style)
        self.conv2 = layer(channels, channels, kernel, style)

    def forward(self, x: Tensor, turn: int = 0) -> Tensor:
        """Return x + conv2(conv1(x))."""
        return self.conv2(self.conv1(x, turn), turn).add_(x)  # type: ignore[no-any-return]


def norm_act(channels: int, style: Style) -> Steps | Turns:
    """Normalisation, if any, followed by activation."""
    if style.turns:
        return Turns(channels, style)
    # In place only on the output of the normalisation; without one, x would be the caller's tensor or a skip.
    act = activation(style.act, inplace=style.norm is not None, **style.act_options)
    norm = {} if style.norm is None else {"norm": normalisation(style.norm, channels, style.group)}
    return Steps({**norm, "act": act})


def conv(in_channels: int, out_channels: int, kernel: Triple, style: Style, padding: str = "same") -> nn.Conv3d:
    """A convolution initialised from He's normal distribution with the gain of the network's activation."""
    made = nn.Conv3d(in_channels, out_channels, kernel, padding=pad_size(kernel, padding), bias=style.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        made.weight.normal_(0, gain(style.act, **style.act_options) / made.weight[0].numel() ** 0.5)
        if made.bias is not None:
            made.bias.zero_()
    return made


def layer(in_channels: int, out_channels: int, kernel: Triple, style: Style, padding: str = "same") -> Steps:
    """One layer: norm - act - conv."""
    before = norm_act(in_channels, style)
    steps = {style.layout: before} if style.layout else dict(before.named_children())
    return Steps({**steps, "conv": conv(in_channels, out_channels, kernel, style, padding)})


def block(in_channels: int, out_channels: int, kernel: Triple, style: Style) -> Steps:
    """One block: layer, residual pair, layer."""
    padding = "valid" if style.valid else "same"
    steps: dict[str, nn.Module] = {
        "pre": layer(in_channels, out_channels, kernel, style, padding),
        "res": Residual(out_channels, kernel, style),
        "post": layer(out_channels, out_channels, kernel, style, padding),
    }
    if style.squeeze:
        steps["se"] = SqueezeExcitation(out_channels, style)
    return Steps(steps)


class Up(nn.Module):
    """Upsample to the channels of the skip, and add the skip.

    Upsampling treats all channels alike and the 1x1x1 convolution treats all voxels alike, so the two commute. If the
    convolution reduces the channels, it runs first, on a quarter of the voxels.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: Triple, style: Style) -> None:
        super().__init__()
        if style.up not in UPSAMPLING:
            raise InputError("upsampling", style.up, f"one of {', '.join(UPSAMPLING)}")
        self.up = nn.Sequential(UPSAMPLING[style.up](in_channels, factor), conv(in_channels, out_channels, 1, style))
        self.mix_first = out_channels <= in_channels
        self.gate = AttentionGate(out_channels, style) if style.gates else None

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the upsampled coarse map plus the centre of the skip."""
        upsample, mix = self.up
        x = upsample(mix(x)) if self.mix_first else mix(upsample(x))
        skip = crop3d_center(skip, x)
        return x.add_(skip) if self.gate is None else x + self.gate(skip, x)


class UpLevel(nn.Module):
    """Way up to one level: `up`, then the block, as child `conv` or with its layers as direct children."""

    def __init__(self, up: Up, after: Steps, flat: bool = False) -> None:
        super().__init__()
        self.up = up
        for name, step in after.named_children() if flat else [("conv", after)]:
            self.add_module(name, step)

    def forward(self, x: Tensor, skip: Tensor, turn: int = 0) -> Tensor:
        """Combine the coarse map and the skip into the map of this level."""
        x = self.up(x, skip)
        for step in list(self.children())[1:]:
            x = step(x, turn)
        return x


class SqueezeExcitation(nn.Module):
    """Squeeze-excitation: weigh channels by the content of the whole patch (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, style: Style, reduction: int = 4) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.squeeze = nn.Conv3d(channels, inner, 1)
        self.excite = nn.Conv3d(inner, channels, 1)
        self.act = activation(style.act, inplace=True, **style.act_options)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each channel of x by a weight in (0, 1)."""
        weight = self.excite(self.act(self.squeeze(x.mean((2, 3, 4), keepdim=True))))
        return x * torch.sigmoid(weight)


class AttentionGate(nn.Module):
    """Attention gate: weigh each voxel of a skip by the map from below (Oktay et al. 2018, arXiv:1804.03999)."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.skip = nn.Conv3d(channels, inner, 1, bias=False)
        self.gate = nn.Conv3d(channels, inner, 1)
        self.act = activation(style.act, inplace=True, **style.act_options)
        self.weight = nn.Conv3d(inner, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Multiply each voxel of the skip by a weight in (0, 1)."""
        return skip * torch.sigmoid(self.weight(self.act(self.skip(skip) + self.gate(gate))))
