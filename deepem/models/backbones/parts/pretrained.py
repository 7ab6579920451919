"""Load weights of public 2-D networks into 3-D backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.backbones.parts.base import resize_positions
from deepem.utils.geometry import Vec3

NAMES = (
    (r"^patch_embed\.proj\.", "embeddings.projection."),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"(^|\.)attn\.", r"\1attention."),
)
"""Rules from detectron2's and MAE's names of vision transformer modules to those of `ViTDet`."""


def rename(key: str) -> str:
    """Rename an entry of detectron2's or MAE's state dict to the name in `ViTDet`; other names stay."""
    for pattern, replacement in NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def inflate(state_dict: Mapping[str, Tensor], model: nn.Module, *, grid: Vec3 | None = None) -> dict[str, Tensor]:
    """Adapt the state dict of a 2-D network to a 3-D network of the same architecture.

    - A kernel (out, in, y, x) becomes the centre tap along z of a kernel (out, in, z, y, x), zero elsewhere. On a
        single section the 3-D network therefore gives the output of the 2-D network.
    - A kernel for RGB images is summed over its channels for a grey image, or split evenly among several channels.
    - Absolute positions are repeated along z and interpolated to the model's grid; the position of a class token is
        dropped. Relative positions are interpolated. A 2-D network has none along z, so the model keeps its own there.

    Args:
        state_dict: State dict of the 2-D network; entries that are already 3-D are used as they are. It is not
            modified.
        model: A backbone or a network that contains one.
        grid: Grid of tokens (z, y, x) of the absolute positions; by default one square section.

    Returns:
        The entries that fit, with the names and shapes of the model. Other entries are dropped.
    """
    own = model.state_dict()
    grids = _position_grids(model)
    fitted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        name = next((n for n in (key, rename(key)) if n in own), None)
        if name is None:
            continue
        if name in grids:
            value = _positions(value, grid, grids[name])
        elif re.search(r"rel_pos_[dhw]$", name):
            value = F.interpolate(value.T[None], size=len(own[name]), mode="linear")[0].T
        elif own[name].dim() == 5 and value.dim() in (4, 5):
            value = _kernel(value, own[name])
        if value.shape == own[name].shape:
            fitted[name] = value.clone()
    return fitted


def _position_grids(model: nn.Module) -> dict[str, Vec3]:
    """The grid (z, y, x) of every table of absolute positions in the model, by name."""
    return {
        f"{prefix}.{name}".lstrip("."): grid
        for prefix, module in model.named_modules()
        for name, grid in getattr(module, "position_grids", {}).items()
    }


def _kernel(value: Tensor, like: Tensor) -> Tensor:
    """Expand a kernel to the model's taps along z and its input channels."""
    if value.shape[1] == 3 != like.shape[1]:
        value = value.sum(1, keepdim=True).expand(-1, like.shape[1], *value.shape[2:]) / like.shape[1]
    if value.dim() == 5:
        return value
    taps = torch.zeros(*value.shape[:2], like.shape[2], *value.shape[2:], dtype=value.dtype, device=value.device)
    taps[:, :, like.shape[2] // 2] = value
    return taps


def _positions(table: Tensor, old: Vec3 | None, new: Vec3) -> Tensor:
    """Interpolate a table of absolute positions to the model's grid; returned unchanged if its grid is unknown."""
    tokens = table.shape[1]
    if old is None:
        if tokens == new[0] * new[1] * new[2]:
            return table
        if isqrt(tokens) ** 2 != tokens and isqrt(tokens - 1) ** 2 == tokens - 1:
            table, tokens = table[:, 1:], tokens - 1  # position of the class token, which comes first
        side = isqrt(tokens)
        old = (1, side, side)
    if tokens == old[0] * old[1] * old[2] + 1:
        table, tokens = table[:, 1:], tokens - 1
    if tokens != old[0] * old[1] * old[2]:
        return table
    return resize_positions(table, old, new)
