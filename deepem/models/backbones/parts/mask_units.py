"""Blocks of Hiera: attention over unrolled tokens, within mask units or global."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.backbones.parts.base import DropPath, Mlp
from deepem.models.backbones.parts.unroll import pool_first
from deepem.utils.geometry import Vec3


class MaskUnitAttention(nn.Module):
    """Attention over unrolled tokens, within mask units or global, with pooled queries.

    Args:
        dim: Channels in.
        dim_out: Channels out.
        heads: Number of heads.
        q_stride: Number of tokens that are max-pooled into one query.
        window_size: Tokens of a mask unit after pooling.
        use_mask_unit_attn: Attend within mask units rather than globally.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        heads: int,
        q_stride: int = 1,
        window_size: int = 0,
        use_mask_unit_attn: bool = False,
    ) -> None:
        super().__init__()
        self.dim_out, self.heads, self.q_stride = dim_out, heads, q_stride
        self.window = q_stride * window_size if use_mask_unit_attn else 0
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, dim) -> (N, tokens / q_stride, dim_out)."""
        batch, tokens, _ = x.shape
        windows = tokens // self.window if self.window else 1
        qkv = self.qkv(x).reshape(batch, -1, windows, 3, self.heads, self.dim_out // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # each (N * windows, heads, tokens of a window, C)
        if self.q_stride > 1:
            q = q.unflatten(2, (self.q_stride, -1)).amax(2)
        x = F.scaled_dot_product_attention(q, k, v).unflatten(0, (batch, windows))
        out: Tensor = self.proj(x.permute(0, 3, 1, 2, 4).reshape(batch, -1, self.dim_out))
        return out


class HieraBlock(nn.Module):
    """Attention and MLP with pre-norm and residual connections; pools where the number of channels changes.

    Args:
        dim: Channels in.
        dim_out: Channels out.
        heads: Number of heads.
        mlp_ratio: Hidden channels of the MLP, relative to its channels.
        drop_path: Rate at which training skips the branches.
        q_stride: Number of tokens that are pooled into one.
        window_size: Tokens of a mask unit after pooling.
        use_mask_unit_attn: Attend within mask units rather than globally.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        q_stride: int = 1,
        window_size: int = 0,
        use_mask_unit_attn: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.dim_out, self.q_stride = dim, dim_out, q_stride
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MaskUnitAttention(dim, dim_out, heads, q_stride, window_size, use_mask_unit_attn)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, dim) -> (N, tokens / q_stride, dim_out)."""
        normed = self.norm1(x)
        if self.dim != self.dim_out:
            x = pool_first(self.proj(normed), self.q_stride)
        x = x + self.drop_path(self.attn(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """Embed overlapping patches as tokens; masked voxels are zeroed first, so that no patch sees them."""

    def __init__(self, in_chans: int, embed_dim: int, kernel: Vec3, stride: Vec3, padding: Vec3) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel, stride, padding)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Image (N, C, Z, Y, X) -> tokens (N, tokens, embed_dim); mask (N, 1, z, y, x) is true for visible parts."""
        if mask is not None:
            x = x * F.interpolate(mask.float(), size=x.shape[-3:]).to(x.dtype)
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)
