"""Hiera, a hierarchical vision transformer of plain blocks (Ryali et al. 2023, arXiv:2306.00989), in 3-D.

::

    image - patch embedding - + positions - unroll - stage p2 - stage p3 - stage p4 - stage p5
                 /4                                     /4         /8         /16        /32

The first stages attend within mask units, which shrink with each pooling; the last stages attend globally. Parameters
have the names of the authors' code, so that public weights load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepem.models.backbones.parts.base import Backbone, Maps, grid_of, resize_positions, start_transformer, through
from deepem.models.backbones.parts.mask_units import HieraBlock, PatchEmbed
from deepem.models.backbones.parts.positions import Positions, position_grids
from deepem.models.backbones.parts.unroll import Reroll, Unroll, unit_size
from deepem.models.emvision.utils import Triple, mul3, triple
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


class Head(nn.Module):
    """Classify the mean token; logits in training mode, probabilities in eval mode, like the authors' network."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) -> (N, num_classes)."""
        logits: Tensor = self.projection(x)
        return logits if self.training else logits.softmax(-1)


class Hiera(Backbone):
    """Hiera from an image to feature maps, or to classes if `num_classes` is given. Arguments have the authors' names.

    Args:
        input_size: Voxels (z, y, x) that the positions are learned for; they are interpolated for other sizes.
        in_chans: Channels of the image.
        embed_dim: Channels of the first stage.
        num_heads: Heads of the first stage.
        num_classes: Outputs of a linear head on the mean token; 0 for a backbone.
        stages: Blocks of each stage.
        q_pool: Number of stage transitions that also pool.
        q_stride: Tokens (z, y, x) pooled into one.
        mask_unit_size: Tokens (z, y, x) of a mask unit, q_stride ** (stages - 1), which is the default.
        mask_unit_attn: For each stage, whether it attends within mask units rather than globally.
        dim_mul: Factor by which channels grow from stage to stage.
        head_mul: Factor by which heads grow from stage to stage.
        patch_kernel: Kernel of the patch embedding.
        patch_stride: Stride of the patch embedding, in voxels per token.
        patch_padding: Padding of the patch embedding.
        mlp_ratio: Hidden channels of each MLP, relative to its channels.
        drop_path_rate: Stochastic depth rate of the last block; the rate rises linearly from 0 at the first.
        sep_pos_embed: Positions as one table ("whole" or False), as the sum of a table over z and one over (y, x)
            ("z_yx" or True), or of one over each axis ("z_y_x").
        checkpointing: Recompute activations within each block in the backward pass, to save memory.
    """

    def __init__(
        self,
        input_size: Triple = 64,
        in_chans: int = 1,
        embed_dim: int = 96,
        num_heads: int = 1,
        num_classes: int = 0,
        stages: Sequence[int] = (2, 3, 16, 3),
        q_pool: int = 3,
        q_stride: Triple = 2,
        mask_unit_size: Triple | None = None,
        mask_unit_attn: Sequence[bool] = (True, True, False, False),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        patch_kernel: Triple = 7,
        patch_stride: Triple = 4,
        patch_padding: Triple = 3,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        sep_pos_embed: Positions = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= q_pool < len(stages) <= len(mask_unit_attn):
            raise ValueError(f"{q_pool} poolings and {len(mask_unit_attn)} kinds of attention for {len(stages)} stages")
        schedule = [triple(q_stride)] * (len(stages) - 1)
        self.unit = unit_size(schedule)
        if mask_unit_size is not None and triple(mask_unit_size) != self.unit:
            raise InputError("mask_unit_size", mask_unit_size, f"{self.unit}, q_stride ** (stages - 1)")
        self.patch_stride = triple(patch_stride)
        self.multiple = mul3(self.patch_stride, self.unit)
        self.check_size(triple(input_size))
        self.tokens = grid_of(triple(input_size), self.patch_stride)
        self.checkpointing = checkpointing
        self.stage_ends = [sum(stages[: i + 1]) - 1 for i in range(len(stages))]
        self.patch_embed = PatchEmbed(
            in_chans, embed_dim, triple(patch_kernel), self.patch_stride, triple(patch_padding)
        )
        self.positions = sep_pos_embed
        self.position_grids = position_grids(sep_pos_embed, self.tokens)
        for name, grid in self.position_grids.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(1, prod(grid), embed_dim)))
        self.unroll = Unroll(triple(input_size), self.patch_stride, schedule)
        self.reroll = Reroll(triple(input_size), self.patch_stride, schedule, self.stage_ends, q_pool)
        self.stages, self.q_pool, self.q_stride, self.mask_unit_attn = stages, q_pool, triple(q_stride), mask_unit_attn
        widths, heads = _multiplied(embed_dim, dim_mul, len(stages)), _multiplied(num_heads, head_mul, len(stages))
        self._blocks(widths, heads, mlp_ratio, drop_path_rate)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.num_layers = len(self.blocks) + 2
        self.head = Head(widths[-1], num_classes) if num_classes else None
        start_transformer(self, bias=0.02)
        for name in self.position_grids:
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)

    def _blocks(self, widths: Sequence[int], heads: Sequence[int], mlp_ratio: float, drop_path_rate: float) -> None:
        """Build the blocks. Return them with the channels and strides of each stage's map."""
        depth = sum(self.stages)
        self.blocks = nn.ModuleList()
        self.out_channels, self.strides = {}, {}
        unit, stride = prod(self.unit), self.patch_stride
        for stage, count in enumerate(self.stages):
            for i in range(count):
                entry = stage > 0 and i == 0  # changes channels and pools, but attends like the stage before
                before = stage - entry
                pooled = prod(self.q_stride) if entry and stage <= self.q_pool else 1
                unit //= pooled
                stride = stride if pooled == 1 else mul3(stride, self.q_stride)
                rate = drop_path_rate * len(self.blocks) / max(depth - 1, 1)
                within = self.mask_unit_attn[before]
                block = HieraBlock(widths[before], widths[stage], heads[stage], mlp_ratio, rate, pooled, unit, within)
                self.blocks.append(block)
            self.out_channels[f"p{stage + 2}"], self.strides[f"p{stage + 2}"] = widths[stage], stride

    def get_pos_embed(self, tokens: Vec3 | None = None) -> Tensor:
        """Positions (1, tokens, C) for a grid of tokens (z, y, x), interpolated if it is not the learned grid."""
        size = self.tokens if tokens is None else tokens
        total: Tensor | None = None
        for name, grid in position_grids(self.positions, size).items():
            table = resize_positions(self.get_parameter(name), self.position_grids[name], grid).reshape(1, *grid, -1)
            total = table if total is None else total + table
        assert total is not None
        return total.expand(1, *size, -1).reshape(1, prod(size), -1)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_intermediates: bool = False
    ) -> Maps | Tensor | tuple[Tensor, list[Tensor]]:
        """Return feature maps of an image, or the output of the authors' network.

        Args:
            x: (N, C, Z, Y, X), sides multiples of `multiple`.
            mask: (N, mask units), true for the units to keep; every sample must keep the same number.
            return_intermediates: Return the output of the authors' network: a pair of the result and the tokens after
                each stage (N, z, y, x, C), or with a mask (N, units kept, z, y, x, C).

        Returns:
            For a backbone, maps (N, C, z, y, x), the last one normalised. For a network with classes, (N, num_classes),
            or the last tokens (N, tokens, C) if there is a mask.
        """
        tokens, maps = self.features(x, mask)
        if self.head is None and not return_intermediates:
            if mask is not None:
                raise ValueError("with a mask there are no maps of the whole image: ask for return_intermediates")
            maps[-1] = self.norm(maps[-1])
            return OrderedDict(zip(self.out_channels, (m.movedim(-1, 1) for m in maps), strict=True))
        result: Tensor = tokens if mask is not None else self.norm(tokens.mean(1))
        if self.head is not None and mask is None:
            result = self.head(result)
        return (result, maps) if return_intermediates else result

    def features(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the last tokens, unrolled, and the tokens after each stage in spatial order."""
        self.check_size(tuple(x.shape[-3:]))
        size = grid_of(tuple(x.shape[-3:]), self.patch_stride)
        units = grid_of(size, self.unit)
        tokens = self.patch_embed(x, None if mask is None else mask.view(-1, 1, *units))
        tokens = self.unroll(tokens + self.get_pos_embed(size), size)
        if mask is not None:
            tokens = self._keep(tokens, mask)
        maps = []
        for i, block in enumerate(self.blocks):
            tokens = through(block, tokens, self.checkpointing)
            if i in self.stage_ends:
                maps.append(self.reroll(tokens, i, mask, size))
        return tokens, maps

    def _keep(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Select the tokens of the mask units that are kept."""
        if len(set(mask.sum(1).tolist())) != 1:
            raise ValueError(f"a mask keeps as many units of each sample, not {mask.sum(1).tolist()}")
        kept = mask[:, None].expand(-1, prod(self.unit), -1).flatten(1)
        return tokens[kept].view(tokens.shape[0], -1, tokens.shape[-1])

    def layer_of(self, name: str) -> int:
        """0 for patch embedding and positions, then the block's number counted from 1, then one for the final norm."""
        if name.startswith(("patch_embed.", "pos_embed")):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else self.num_layers - 1


def _multiplied(start: int, factor: float, count: int) -> list[int]:
    """A number multiplied by each factor in turn, rounded down."""
    numbers = [start]
    while len(numbers) < count:
        numbers.append(int(numbers[-1] * factor))
    return numbers


SIZES: dict[str, dict[str, Any]] = {
    "t": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2)},
    "s": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2)},
    "b": {"embed_dim": 96, "num_heads": 1, "stages": (2, 3, 16, 3)},
    "bp": {"embed_dim": 112, "num_heads": 2, "stages": (2, 3, 16, 3)},
    "l": {"embed_dim": 144, "num_heads": 2, "stages": (2, 6, 36, 4)},
}
"""Sizes: tiny, small, base, base plus, large."""


def hiera_t(*, in_channels: int = 1, **options: Any) -> Hiera:
    """Tiny: 26,885,088 parameters with separate positions at 64^3. Takes the options of `Hiera`."""
    return Hiera(in_chans=in_channels, **{"sep_pos_embed": "z_yx", **SIZES["t"], **options})


def hiera_s(*, in_channels: int = 1, **options: Any) -> Hiera:
    """Small: 33,982,944 parameters with separate positions at 64^3. Takes the options of `Hiera`."""
    return Hiera(in_chans=in_channels, **{"sep_pos_embed": "z_yx", **SIZES["s"], **options})


def hiera_b(*, in_channels: int = 1, **options: Any) -> Hiera:
    """Base: 50,499,840 parameters with separate positions at 64^3. Takes the options of `Hiera`."""
    return Hiera(in_chans=in_channels, **{"sep_pos_embed": "z_yx", **SIZES["b"], **options})


def hiera_bp(*, in_channels: int = 1, **options: Any) -> Hiera:
    """Base plus: 68,700,800 parameters with separate positions at 64^3. Takes the options of `Hiera`."""
    return Hiera(in_chans=in_channels, **{"sep_pos_embed": "z_yx", **SIZES["bp"], **options})


def hiera_l(*, in_channels: int = 1, **options: Any) -> Hiera:
    """Large: 212,202,720 parameters with separate positions at 64^3. Takes the options of `Hiera`."""
    return Hiera(in_chans=in_channels, **{"sep_pos_embed": "z_yx", **SIZES["l"], **options})


def create_backbone(
    *,
    in_channels: int = 1,
    hiera_size: Literal["t", "s", "b", "bp", "l"] = "t",
    image_size: tuple[int, int, int] = (64, 64, 64),
    positions: Literal["whole", "z_yx", "z_y_x"] = "z_yx",
    patch_stride: tuple[int, int, int] = (4, 4, 4),
    q_stride: tuple[int, int, int] = (2, 2, 2),
    drop_path: float = 0.0,
    checkpointing: bool = False,
) -> Hiera:
    """Hiera with maps p2 to p5 at 1/4, 1/8, 1/16 and 1/32 of the resolution.

    Args:
        in_channels: Channels of the image.
        hiera_size: Tiny, small, base, base plus or large.
        image_size: Patch size z,y,x that the positions are learned for; they are interpolated for others.
        positions: Learn one table of positions, one for z and one for y and x, or one for each axis.
        patch_stride: Voxels per token, z,y,x; 1,4,4 for thick sections.
        q_stride: Tokens pooled into one between stages, z,y,x; 1,2,2 for thick sections.
        drop_path: Rate at which training skips the last block; the rate rises from 0 at the first block.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    if hiera_size not in SIZES:
        raise InputError("hiera_size", hiera_size, f"one of {', '.join(SIZES)}")
    return Hiera(
        image_size,
        in_channels,
        **SIZES[hiera_size],
        q_stride=q_stride,
        patch_kernel=vec3(2 * s - 1 for s in patch_stride),
        patch_stride=patch_stride,
        patch_padding=vec3(s - 1 for s in patch_stride),
        drop_path_rate=drop_path,
        sep_pos_embed=positions,
        checkpointing=checkpointing,
    )
