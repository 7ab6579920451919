"""Upsampling, activations and normalisation: the layers in which the networks differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.emvision.utils import Triple, triple
from deepem.utils.errors import InputError


def _linear_taps(factor: int) -> Tensor:
    """Weights of linear interpolation by a whole factor: 2 * factor - factor % 2 weights that sum to `factor`."""
    taps = 2 * factor - factor % 2
    return 1 - (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2).abs() / factor


class BilinearUp(nn.Module):
    """Upsampling by fixed linear interpolation, written as a depthwise transposed convolution.

    The border is zero-padded: with factor 2, a voxel at the border keeps 3/4 of its value for each border it touches.

    Args:
        in_channels: Channels C.
        out_channels: Must equal `in_channels`, because channels are not mixed.
        factor: Whole upsampling factor per axis, z, y, x.
        exact: Interpolate along z as along y and x. Otherwise behave like the public code: all taps along z are one,
            which doubles values if the z factor is 2 or more, and the factors of y and x must be equal. A checkpoint
            overrides this choice, because it contains the weights.

    Attributes:
        weight: Buffer (C, 1, kz, ky, kx), part of the state dict.
    """

    weight: Tensor

    def __init__(self, in_channels: int, out_channels: int, factor: Triple = (1, 2, 2), *, exact: bool = True) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"each channel is upsampled alone: {in_channels} in, {out_channels} out")
        self.factor = triple(factor)
        if not exact and self.factor[1] != self.factor[2]:
            raise ValueError(f"factors {self.factor}: y and x differ, which needs exact=True")
        z, y, x = map(_linear_taps, self.factor)
        if not exact:
            z = torch.ones_like(z)
        kernel = (z[:, None, None] * y[:, None] * x).float()
        self.register_buffer("weight", kernel.expand(in_channels, 1, *kernel.shape).clone())
        self.padding = tuple(math.ceil((f - 1) / 2) for f in self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) -> (N, C, fz*Z, fy*Y, fx*X); also accepts fewer channels than C."""
        channels = x.shape[1]
        weight = self.weight[:channels]
        return F.conv_transpose3d(x, weight, stride=self.factor, padding=self.padding, groups=channels)


class Interpolate(nn.Module):
    """Upsampling by torch's interpolation, 'nearest' or 'trilinear': no weights, and borders keep their values."""

    def __init__(self, factor: Triple, mode: str) -> None:
        super().__init__()
        self.scale = tuple(map(float, triple(factor)))
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) -> (N, C, fz*Z, fy*Y, fx*X)."""
        align = False if self.mode == "trilinear" else None
        return F.interpolate(x, scale_factor=self.scale, mode=self.mode, align_corners=align)


UPSAMPLING: dict[str, Callable[[int, Triple], nn.Module]] = {
    "bilinear": lambda channels, factor: BilinearUp(channels, channels, factor, exact=False),
    "exact": lambda channels, factor: BilinearUp(channels, channels, factor),
    "nearest": lambda channels, factor: Interpolate(factor, "nearest"),
    "trilinear": lambda channels, factor: Interpolate(factor, "trilinear"),
}
"""Upsampling layers by name. 'bilinear' is the public one, whose z taps are all one; 'exact' corrects them."""


def activation(name: str, *, inplace: bool, **options: float) -> nn.Module:
    """Create ReLU, LeakyReLU(negative_slope), PReLU(init) or ELU by name."""
    if name == "PReLU":
        return nn.PReLU(**options)  # type: ignore[arg-type]
    kinds: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "LeakyReLU": nn.LeakyReLU, "ELU": nn.ELU}
    if name not in kinds:
        raise InputError("act", name, f"one of {', '.join([*kinds, 'PReLU'])}")
    return kinds[name](inplace=inplace, **options)


def gain(name: str, **options: float) -> float:
    """Gain that preserves the mean square of normal values through the activation: 1 / sqrt(E[f(x)^2]), x ~ N(0, 1).

    For rectifiers with slope a below zero it is sqrt(2 / (1 + a^2)) (He et al. 2015, arXiv:1502.01852).
    """
    if name == "ELU":  # mean of (e^x - 1)^2 over x < 0, by the normal distribution function
        below = 0.5 + math.e**2 * _normal(-2) - 2 * math.e**0.5 * _normal(-1)
        return 1 / math.sqrt(0.5 + options.get("alpha", 1.0) ** 2 * below)
    slope = {"LeakyReLU": options.get("negative_slope", 0.01), "PReLU": options.get("init", 0.25)}.get(name, 0.0)
    return math.sqrt(2 / (1 + slope**2))


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def normalisation(kind: str, channels: int, group: int) -> nn.Module:
    """Create batch norm, instance norm (without weights), or group norm with `group` channels per group."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "instance":
        return nn.InstanceNorm3d(channels)
    if kind != "group":
        raise ValueError(f"normalisation {kind!r} is none of batch, group, instance")
    if group < 1 or channels % group:
        raise InputError("group", group, f"channels per group: a number that divides every width, also {channels}")
    return nn.GroupNorm(channels // group, channels)
