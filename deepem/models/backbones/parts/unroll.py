"""The order in which Hiera stores its tokens, which turns pooling and windows into plain reshapes.

Each step of the schedule moves the offset within a window of `strides` tokens to the front. In 1-D, with 8 tokens and
two steps of 2, token = 4 a + 2 b + c (a, b, c in {0, 1}) goes to position 4 c + 2 b + a::

    spatial   0 1 2 3 4 5 6 7
    unrolled  0 4 2 6 1 5 3 7        halves {0 4 2 6} {1 5 3 7}: partners 0|1, 4|5, 2|3, 6|7 lie 4 apart

A max-pool is then the maximum over the two halves, and the tokens of mask unit m are at positions m, m + units,
m + 2 units, ... Source: Ryali et al. 2023, arXiv:2306.00989.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from deepem.models.backbones.parts.base import grid_of
from deepem.utils.geometry import Vec3, vec3


def pool_first(x: Tensor, stride: int) -> Tensor:
    """Maximum over windows of `stride` unrolled tokens: (N, tokens, C) -> (N, tokens / stride, C)."""
    pooled: Tensor = x.unflatten(1, (stride, -1)).amax(1)
    return pooled


class Unroll(nn.Module):
    """Reorder tokens from spatial to unrolled order.

    Args:
        input_size: Voxels (z, y, x) of the image that is assumed if no size is given.
        patch_stride: Voxels per token.
        unroll_schedule: Window (z, y, x) of each step.
    """

    def __init__(self, input_size: Sequence[int], patch_stride: Sequence[int], unroll_schedule: Sequence[Vec3]) -> None:
        super().__init__()
        self.size = grid_of(tuple(input_size), vec3(patch_stride))
        self.schedule = [vec3(strides) for strides in unroll_schedule]

    def forward(self, x: Tensor, size: Vec3 | None = None) -> Tensor:
        """(N, tokens, C) -> the same shape, unrolled; `size` is the grid of tokens (z, y, x)."""
        batch, tokens, channels = x.shape
        z, y, x_ = self.size if size is None else size
        x = x.reshape(batch, z, y, x_, channels)
        for sz, sy, sx in self.schedule:
            z, y, x_ = z // sz, y // sy, x_ // sx
            x = x.reshape(-1, z, sz, y, sy, x_, sx, channels).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(0, 3)
        return x.reshape(batch, tokens, channels)


class Reroll(nn.Module):
    """Reorder unrolled tokens to spatial order.

    Args:
        input_size: As in `Unroll`.
        patch_stride: As in `Unroll`.
        unroll_schedule: As in `Unroll`.
        stage_ends: Number of the last block of each stage.
        q_pool: Number of stages that end in a pooling; each pooling uses up one step of the schedule.
    """

    def __init__(
        self,
        input_size: Sequence[int],
        patch_stride: Sequence[int],
        unroll_schedule: Sequence[Vec3],
        stage_ends: Sequence[int],
        q_pool: int,
    ) -> None:
        super().__init__()
        self.size = grid_of(tuple(input_size), vec3(patch_stride))
        self.steps = [vec3(strides) for strides in unroll_schedule]
        self.pools = list(stage_ends[:q_pool])

    def forward(self, x: Tensor, block_idx: int, mask: Tensor | None = None, size: Vec3 | None = None) -> Tensor:
        """Return the tokens (N, tokens, C) after block `block_idx` in spatial order.

        Args:
            x: The tokens.
            block_idx: Number of the block that produced them.
            mask: The mask, if some mask units were dropped.
            size: Grid of tokens (z, y, x) at the input of the first block.

        Returns:
            (N, z, y, x, C), or with a mask (N, units left, z, y, x, C), where z, y, x is the size of a mask unit.
        """
        used = sum(end < block_idx for end in self.pools)
        z, y, x_ = self.size if size is None else size
        for sz, sy, sx in self.steps[:used]:
            z, y, x_ = z // sz, y // sy, x_ // sx
        batch, tokens, channels = x.shape
        uz = uy = ux = 1  # window put together so far
        for sz, sy, sx in self.steps[used:]:
            tokens //= sz * sy * sx
            x = x.reshape(batch, sz, sy, sx, tokens, uz, uy, ux, channels)
            uz, uy, ux = uz * sz, uy * sy, ux * sx
            x = x.permute(0, 4, 1, 5, 2, 6, 3, 7, 8).reshape(batch, tokens, uz, uy, ux, channels)
        x = x.reshape(batch, -1, uz, uy, ux, channels)
        if mask is not None:
            return x
        x = x.reshape(batch, z // uz, y // uy, x_ // ux, uz, uy, ux, channels)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, z, y, x_, channels)


def unit_size(schedule: Sequence[Vec3]) -> Vec3:
    """Tokens (z, y, x) of the window that all steps together form."""
    return vec3(prod(strides[axis] for strides in schedule) for axis in range(3))
