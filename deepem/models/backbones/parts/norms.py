"""Normalisation layers of backbones, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepem.utils.errors import InputError

Norm = Callable[[int], nn.Module]
"""Number of channels -> a layer."""


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics, scale and shift, for pretrained weights."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        """(x - running_mean) / sqrt(running_var + eps) * weight + bias."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        wide = (1, -1, 1, 1, 1)
        return x * scale.view(wide).to(x.dtype) + shift.view(wide).to(x.dtype)


def norm_of(kind: str, groups: int = 32) -> Norm:
    """Factory of normalisation layers: batch, group (with `groups` groups) or frozen."""
    kinds: dict[str, Norm] = {
        "batch": nn.BatchNorm3d,
        "group": lambda channels: nn.GroupNorm(min(groups, channels), channels),
        "frozen": FrozenBatchNorm,
    }
    if kind not in kinds:
        raise InputError("norm", kind, f"one of {', '.join(kinds)}")
    return kinds[kind]
