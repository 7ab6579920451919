"""Base class and shared layers of backbones.

A backbone takes an image (N, C, Z, Y, X) and returns an OrderedDict of maps, finest first. The names p2, p3, ... count
the maps, whatever their stride.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.emvision.recompute import recomputed
from deepem.models.emvision.sizes import UShape
from deepem.utils.geometry import Vec3, vec3

Maps = OrderedDict[str, Tensor]


class Backbone(nn.Module):
    """Base class of networks from an image to feature maps.

    For layer-wise learning-rate decay (Clark et al. 2020, arXiv:2003.10555), layers are numbered from 0, the stem, to
    `num_layers` - 1. A decay d multiplies a parameter's learning rate by d ** (num_layers - 1 - layer_of(name)).

    Attributes:
        out_channels: Channels of each map, finest first.
        strides: Voxels of the image per voxel of each map, (z, y, x).
        multiple: The sides of an image are multiples of this, (z, y, x).
        num_layers: Number of layers that `layer_of` distinguishes.
        is_pyramid: Finer maps already contain the information of coarser ones, so no FPN is needed.
    """

    out_channels: dict[str, int]
    strides: dict[str, Vec3]
    multiple: Vec3
    num_layers: int
    is_pyramid = False

    def layer_of(self, name: str) -> int:
        """Return the layer that a parameter belongs to, given its name in this module."""
        raise NotImplementedError

    def check_size(self, size: tuple[int, ...]) -> None:
        """Raise InputError, naming the nearest sizes that work, unless all sides are multiples of `multiple`."""
        UShape((), stem=self.multiple).output_size(size, "network input")


def through(module: nn.Module, x: Tensor, checkpointing: bool = False) -> Tensor:
    """Return module(x); with checkpointing, its activations are recomputed in the backward pass, to save memory."""
    if checkpointing and module.training:
        return recomputed(module, x)
    out: Tensor = module(x)
    return out


class DropPath(nn.Module):
    """Stochastic depth: skip a residual branch for randomly chosen samples (Huang et al. 2016).

    The branch is scaled by 1 / (1 - rate) in the other samples. It acts in training mode only and, like dropout, draws
    from torch's generator. Source: arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop path rate: got {rate}, wants 0 <= rate < 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any (N, ...)."""
        if not (self.training and self.rate):
            return x
        keep = 1 - self.rate
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (kept / keep)


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel of a map (N, C, Z, Y, X)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise to mean 0 and variance 1 over C, then scale and shift."""
        normed = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.movedim(-1, 1)


def resize_positions(table: Tensor, old: Vec3, new: Vec3) -> Tensor:
    """Interpolate learned positions to another grid of tokens.

    The interpolation is bicubic in y and x, as in 2-D networks, then linear along z.

    Args:
        table: (1, old z * y * x, C).
        old: Grid of tokens (z, y, x) of the table.
        new: Grid of tokens (z, y, x) to interpolate to.

    Returns:
        (1, new z * y * x, C).
    """
    if old == new:
        return table
    channels = table.shape[-1]
    grid = table.reshape(*old, channels).movedim(-1, 0)  # (C, z, y, x)
    if old[1:] != new[1:]:
        grid = F.interpolate(grid, size=new[1:], mode="bicubic", align_corners=False)
    if old[0] != new[0]:
        grid = F.interpolate(grid[None], size=new, mode="trilinear", align_corners=False)[0]
    return grid.movedim(0, -1).reshape(1, -1, channels)


def grid_of(size: tuple[int, ...], stride: Vec3) -> Vec3:
    """Grid of tokens (z, y, x) of an image of this size."""
    return vec3(n // s for n, s in zip(size, stride, strict=True))


def start_transformer(module: nn.Module, bias: float = 0.0) -> None:
    """Draw weights from a normal distribution of standard deviation 0.02, and set all biases, also in norms."""
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.constant_(m.bias, bias)
        elif isinstance(m, nn.LayerNorm):
            nn.init.constant_(m.bias, bias)


def fixed(create_backbone: Callable[..., Any], **values: object) -> Callable[..., Any]:
    """Entry function of a family of backbones with some flags fixed; fixed flags are no longer offered."""

    @wraps(create_backbone)
    def create(**flags: Any) -> Any:
        return create_backbone(**values, **flags)

    signature = inspect.signature(create_backbone, eval_str=True)
    left = [p for p in signature.parameters.values() if p.name not in values]
    create.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    create.__annotations__ = {p.name: p.annotation for p in left}
    return create


def named(maps: Mapping[str, Tensor] | Tensor, names: Mapping[str, Any]) -> Maps:
    """Output of a backbone as an OrderedDict, even if the backbone returned a single tensor."""
    if isinstance(maps, Tensor):
        (name,) = names
        return OrderedDict([(name, maps)])
    return OrderedDict(maps)
