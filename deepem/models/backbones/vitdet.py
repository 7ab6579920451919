"""Plain vision transformer with a simple feature pyramid (Li et al. 2022, arXiv:2203.16527), in 3-D.

::

    image - patch embedding - + positions - blocks - one map of the patches' resolution
                                                      |- 2 transposed convolutions - p2      x 4
                                                      |- transposed convolution ---- p3      x 2
                                                      |----------------------------- p4      x 1
                                                      '- max-pool ------------------ p5      x 1/2

Most blocks attend within windows, a few attend globally. Parameters have the names of the public networks; weights
from detectron2 and MAE (`blocks.0.attn.qkv.weight`) load as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from deepem.models.backbones.parts.attention import Attention, from_windows, to_windows
from deepem.models.backbones.parts.base import (
    Backbone,
    ChannelNorm,
    DropPath,
    Mlp,
    grid_of,
    resize_positions,
    start_transformer,
    through,
)
from deepem.models.backbones.parts.pretrained import rename
from deepem.models.backbones.parts.pyramid import SimpleFeaturePyramid
from deepem.models.emvision.utils import Triple, triple
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


class ResidualBlock(nn.Module):
    """Convolutions 1x1x1, 3x3x3, 1x1x1 with half the channels in between; initialised as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.conv1 = nn.Conv3d(channels, inner, 1, bias=False)
        self.norm1 = ChannelNorm(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, padding=1, bias=False)
        self.norm2 = ChannelNorm(inner)
        self.conv3 = nn.Conv3d(inner, channels, 1, bias=False)
        self.norm3 = ChannelNorm(channels)
        self.act = nn.GELU()

    def start(self) -> None:
        """Initialise the weights."""
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, z, y, x) -> the same shape."""
        out = self.act(self.norm1(self.conv1(x)))
        out = self.act(self.norm2(self.conv2(out)))
        return x + self.norm3(self.conv3(out))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and MLP with pre-norm and residual connections.

    Args:
        width: Channels.
        heads: Number of heads.
        grid: Tokens (z, y, x) of the image size that the network is built for.
        window: Tokens (z, y, x) of an attention window, or None for global attention.
        mlp_ratio: Hidden channels of the MLP, relative to its channels.
        drop_path: Rate at which training skips the branches.
        relative: Learn relative positions.
        residual: End the block with a `ResidualBlock`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        grid: Vec3,
        window: Vec3 | None = None,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        relative: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, (window or grid) if relative else None)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.residual = ResidualBlock(width) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, z, y, x, width) -> the same shape."""
        normed = self.norm1(x)
        if self.window is None:
            seen = self.attention(normed)
        else:
            windows, padded = to_windows(normed, self.window)
            seen = from_windows(self.attention(windows), padded, vec3(x.shape[1:4]))
        x = x + self.drop_path(seen)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x if self.residual is None else self.residual(x.movedim(-1, 1)).movedim(1, -1)


class ViTDet(Backbone):
    """Plain vision transformer from an image to one map, `last_feat`.

    Args:
        image_size: Voxels (z, y, x) that relative positions are learned for; they are interpolated for other sizes.
        patch_size: Voxels (z, y, x) per token.
        in_channels: Channels of the image.
        embed_dim: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads of each block.
        mlp_ratio: Hidden channels of each MLP, relative to its channels.
        drop_path_rate: Stochastic depth rate of the last block; the rate rises linearly from 0 at the first.
        window_size: Tokens of a window (z, y, x), or None for global attention.
        window_block_indices: Blocks that attend within windows; by default all but four, which are evenly spaced.
        residual_block_indices: Blocks that end with convolutions.
        use_abs_pos: Learn a position per token.
        use_rel_pos: Learn relative positions, separately along z, y and x.
        pretrain_image_size: Voxels that the absolute positions are learned for; `image_size` by default.
        checkpointing: Recompute activations within each block in the backward pass, to save memory.
    """

    def __init__(
        self,
        image_size: Triple = 128,
        patch_size: Triple = 16,
        in_channels: int = 1,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        window_size: Triple | None = 4,
        window_block_indices: Sequence[int] | None = None,
        residual_block_indices: Sequence[int] = (),
        use_abs_pos: bool = True,
        use_rel_pos: bool = True,
        pretrain_image_size: Triple | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch_size = self.multiple = triple(patch_size)
        self.check_size(triple(image_size))
        grid = grid_of(triple(image_size), self.patch_size)
        window = None if window_size is None else triple(window_size)
        inside = windowed(depth, min(4, depth)) if window_block_indices is None else window_block_indices
        embeddings, encoder = nn.Module(), nn.Module()
        embeddings.projection = nn.Conv3d(in_channels, embed_dim, self.patch_size, self.patch_size)
        self.position_grids: dict[str, Vec3] = {}
        if use_abs_pos:
            learned = grid_of(triple(pretrain_image_size or image_size), self.patch_size)
            embeddings.position_embeddings = nn.Parameter(torch.zeros(1, prod(learned), embed_dim))
            self.position_grids["embeddings.position_embeddings"] = learned
        encoder.layer = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                grid,
                window if i in inside else None,
                mlp_ratio,
                drop_path_rate * i / max(depth - 1, 1),
                use_rel_pos,
                i in residual_block_indices,
            )
            for i in range(depth)
        )
        self.embeddings, self.encoder = embeddings, encoder
        self.checkpointing = checkpointing
        self.out_channels, self.strides = {"last_feat": embed_dim}, {"last_feat": self.patch_size}
        self.num_layers = depth + 1
        self._start()
        self.register_load_state_dict_pre_hook(_take_other_names)  # type: ignore[no-untyped-call]

    def _start(self) -> None:
        start_transformer(self)
        for m in self.modules():
            if isinstance(m, ResidualBlock):
                m.start()
        for name in self.position_grids:
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return self.encoder.layer  # type: ignore[return-value]

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        """Return the map (N, C, z, y, x) before the first block and after each block."""
        self.check_size(tuple(x.shape[-3:]))
        x = self.embeddings.projection(x).movedim(1, -1)  # type: ignore[operator]
        for name, learned in self.position_grids.items():
            grid = vec3(x.shape[1:4])
            x = x + resize_positions(self.get_parameter(name), learned, grid).reshape(1, *grid, -1)
        states = [x]
        for block in self.blocks:
            states.append(through(block, states[-1], self.checkpointing))
        return [state.movedim(-1, 1) for state in states]

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) -> (N, embed_dim, z, y, x)."""
        return self.hidden_states(x)[-1]

    def layer_of(self, name: str) -> int:
        """0 for patch embedding and positions, then the block's number counted from 1."""
        return int(name.split(".")[2]) + 1 if name.startswith("encoder.layer.") else 0


def _take_other_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename entries from detectron2's names to ours."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + rename(key.removeprefix(prefix))] = state.pop(key)


def windowed(depth: int, everywhere: int) -> list[int]:
    """The blocks that attend within windows: all except `everywhere` evenly spaced ones, the last among them."""
    if not 0 <= everywhere <= depth:
        raise InputError("global_blocks", everywhere, f"at most the {depth} blocks that there are")
    whole = {(i + 1) * depth // everywhere - 1 for i in range(everywhere)}
    return [i for i in range(depth) if i not in whole]


def create_backbone(
    *,
    in_channels: int = 1,
    patch_size: tuple[int, int, int] = (16, 16, 16),
    image_size: tuple[int, int, int] = (128, 128, 128),
    vit_width: int = 768,
    vit_depth: int = 12,
    vit_heads: int = 12,
    window_size: tuple[int, int, int] = (4, 4, 4),
    global_blocks: int = 4,
    residual_blocks: list[int] | None = None,
    relative_positions: bool = True,
    pyramid_width: int = 256,
    drop_path: float = 0.0,
    checkpointing: bool = False,
) -> SimpleFeaturePyramid:
    """Plain vision transformer with a simple feature pyramid: maps p2 to p5 at 1/4, 1/8, 1/16 and 1/32 resolution.

    Args:
        in_channels: Channels of the image.
        patch_size: Voxels per token, z,y,x; 4,16,16 or 1,16,16 for thick sections.
        image_size: Patch size z,y,x that the positions are learned for; they are interpolated for others.
        vit_width: Channels of the tokens; ViT-B 768, ViT-L 1024.
        vit_depth: Number of transformer blocks; ViT-B 12, ViT-L 24.
        vit_heads: Attention heads of each block; ViT-B 12, ViT-L 16.
        window_size: Tokens of an attention window, z,y,x.
        global_blocks: Number of evenly spaced blocks that attend to the whole patch instead.
        residual_blocks: Numbers of the blocks that end with convolutions, counted from 0.
        relative_positions: Learn relative positions in addition to absolute ones.
        pyramid_width: Channels of every map.
        drop_path: Rate at which training skips the last block; the rate rises from 0 at the first block.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    net = ViTDet(
        image_size,
        patch_size,
        in_channels,
        vit_width,
        vit_depth,
        vit_heads,
        drop_path_rate=drop_path,
        window_size=window_size,
        window_block_indices=windowed(vit_depth, global_blocks),
        residual_block_indices=residual_blocks or (),
        use_rel_pos=relative_positions,
        checkpointing=checkpointing,
    )
    return SimpleFeaturePyramid(net, pyramid_width)
