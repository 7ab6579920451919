"""Attention over a grid of tokens with decomposed relative positions, global or in windows, as in ViTDet.

The score of a query at (z, y, x) and a key at (z', y', x') is q.k / sqrt(C) + q.D[z - z'] + q.H[y - y'] + q.W[x - x'].
The last three terms can be written as an inner product: append q.D[z - z'] for all z' to the query, and the one-hot
vector of z' to the key; likewise for y and x. Therefore the matrix of tokens by tokens is never built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.utils.geometry import Vec3, vec3

AXES = "dhw"  # depth, height, width: the public networks' names for z, y, x


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Relative position vectors of all pairs along one axis, from a table of differences.

    Args:
        table: (2 * learned size - 1, C), starting at the most negative difference; interpolated for other sizes.
        size: Tokens along the axis.

    Returns:
        (query, key, C), the vector for the difference query - key.
    """
    if len(table) != 2 * size - 1:
        table = F.interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place + size - 1]


class Attention(nn.Module):
    """Multi-head attention over all tokens of a grid.

    Args:
        width: Channels.
        heads: Number of heads.
        grid: Tokens (z, y, x) that relative positions are learned for, or None to have no relative positions.
    """

    def __init__(self, width: int, heads: int, grid: Vec3 | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be shared among {heads} heads")
        self.heads = heads
        self.relative = grid is not None
        for name, n in zip(AXES, grid or (), strict=False):
            self.register_parameter(f"rel_pos_{name}", nn.Parameter(torch.zeros(2 * n - 1, width // heads)))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, z, y, x, width) -> the same shape."""
        batch, *grid, width = x.shape
        qkv = self.qkv(x).reshape(batch, -1, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, tokens, C)
        if self.relative:
            x = self._with_positions(q, k, v, vec3(grid))
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(x.transpose(1, 2).reshape(batch, *grid, width))
        return out

    def _with_positions(self, q: Tensor, k: Tensor, v: Tensor, grid: Vec3) -> Tensor:
        """Attention with the position terms appended to queries and keys."""
        channels = q.shape[-1]
        spatial = q.unflatten(2, grid)  # (N, heads, z, y, x, C)
        queries, keys = [q * channels**-0.5], [k]
        for axis, (name, n) in enumerate(zip(AXES, grid, strict=True)):
            table = relative_positions(self.get_parameter(f"rel_pos_{name}"), n).to(q.dtype)
            equation = f"bnzyxc,{'zyx'[axis]}kc->bnzyxk"
            queries.append(torch.einsum(equation, spatial, table).flatten(2, 4))
            place = torch.eye(n, dtype=k.dtype, device=k.device).view([n if a == axis else 1 for a in range(3)] + [n])
            keys.append(place.expand(*grid, n).reshape(1, 1, -1, n).expand(*k.shape[:2], -1, -1))
        wide, behind = torch.cat(queries, -1), torch.cat(keys, -1)
        values = F.pad(v, (0, wide.shape[-1] - channels))  # the fast kernels need q, k and v of one width
        return F.scaled_dot_product_attention(wide, behind, values, scale=1.0)[..., :channels]


def to_windows(x: Tensor, window: Vec3) -> tuple[Tensor, Vec3]:
    """Cut tokens into windows, padding the end of each axis with zeros where windows do not fit.

    Args:
        x: (N, z, y, x, C).
        window: Tokens of a window (z, y, x).

    Returns:
        (N * windows, *window, C) and the padded grid.
    """
    pads = [-n % w for n, w in zip(x.shape[1:4], window, strict=True)]
    x = F.pad(x, (0, 0, 0, pads[2], 0, pads[1], 0, pads[0]))
    padded = vec3(x.shape[1:4])
    for axis, w in zip((5, 3, 1), reversed(window), strict=True):
        x = x.unflatten((axis + 1) // 2, (-1, w))
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(0, 3), padded


def from_windows(windows: Tensor, padded: Vec3, grid: Vec3) -> Tensor:
    """Undo `to_windows`: (N, *grid, C)."""
    z, y, x = vec3(windows.shape[1:4])
    counts = (padded[0] // z, padded[1] // y, padded[2] // x)
    tokens = windows.unflatten(0, (-1, *counts)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    whole: Tensor = tokens.reshape(-1, *padded, windows.shape[-1])
    return whole[:, : grid[0], : grid[1], : grid[2]]
