"""Where RoIAlign samples a volume, and with which weights: each axis on its own.

The weights of voxels in bins are a product of one factor per axis, so that boxes are pooled by three matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

ENTRIES = 1 << 25
"""Voxels times channels that are gathered at a time."""


class Axis:
    """Positions of the samples of boxes along one axis, and the weight of each voxel in each bin."""

    def __init__(
        self, begin: Tensor, end: Tensor, length: int, bins: int, scale: float, ratio: int, aligned: bool
    ) -> None:
        shift = 0.5 if aligned else 0.0
        low, high = begin * scale - shift, end * scale - shift
        extent = high - low if aligned else (high - low).clamp(min=1.0)
        self.bins, self.length = bins, length
        step = extent / bins
        if ratio > 0:
            most, share = ratio, torch.full_like(step, 1 / ratio)[:, None, None]
            inner = ((torch.arange(ratio, device=step.device, dtype=step.dtype) + 0.5) / ratio).expand(len(step), 1, -1)
        else:
            samples = step.ceil().clamp(min=0)
            most = int(samples.max().item()) if len(samples) else 1
            counted = torch.arange(max(most, 1), device=step.device, dtype=step.dtype)
            inside = counted < samples[:, None]
            share = (inside / samples.clamp(min=1)[:, None])[:, None]
            inner = ((counted + 0.5) / samples.clamp(min=1)[:, None])[:, None]
        edges = torch.arange(bins, device=step.device, dtype=step.dtype)[:, None]
        at = (low[:, None, None] + (edges + inner) * step[:, None, None]).nan_to_num()  # (K, bins, samples)
        self.share = share * ((at >= -1) & (at <= length))
        at = at.clamp(0, length - 1)
        self.low = at.floor().long()
        self.part = at - self.low
        self.high = (self.low + 1).clamp(max=length - 1)
        self.most = 2 * bins * at.shape[2]
        self.first = self.low.amin((1, 2)) if len(at) else self.low.new_zeros(0)
        self.count = (self.high.amax((1, 2)) - self.first + 1).clamp(max=self.most) if len(at) else self.first

    def read(self, at: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Voxels to read for the boxes `at`, (K', size), and the weight of each voxel in each bin, (K', bins, size).

        These are consecutive voxels, where the last voxel of the axis repeats beyond its end; or, if there are fewer of
        them, the voxels on either side of each sample.
        """
        low, high, part = self.low[at], self.high[at], self.part[at]
        share = self.share[at].expand_as(part)
        weights = part.new_zeros(len(at), self.bins, size)
        if size == self.most:
            place = torch.arange(size // 2, device=part.device).view(1, self.bins, -1).expand_as(low)
            voxels = torch.cat([low.flatten(1), high.flatten(1)], 1)
            return voxels, weights.scatter_(2, place, share * (1 - part)).scatter_(2, place + size // 2, share * part)
        first = self.first[at]
        voxels = (first[:, None] + torch.arange(size, device=first.device)).clamp(max=self.length - 1)
        first = first[:, None, None]
        weights.scatter_add_(2, low - first, share * (1 - part))
        return voxels, weights.scatter_add_(2, high - first, share * part)


def interpolated(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Multiply (K, z, y, x, C) by a matrix (K, bins, size) per axis -> (K, bins, bins, bins, C)."""
    along_z, along_y, along_x = weights
    number, z, y, x, channels = values.shape
    bz, by, bx = (w.shape[1] for w in weights)
    values = along_z @ values.reshape(number, z, -1)
    values = along_y[:, None] @ values.reshape(number, bz, y, -1)
    values = along_x[:, None] @ values.reshape(number, bz * by, x, channels)
    return values.reshape(number, bz, by, bx, channels)


def groups(axes: Sequence[Axis], channels: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Group boxes that cover similar numbers of voxels, within a memory limit; yield indices and voxels per axis."""
    counts = torch.stack([axis.count for axis in axes], 1)
    listed = counts.tolist()
    order = sorted(range(len(listed)), key=lambda k: prod(listed[k]))
    group: list[int] = []
    sizes = [1, 1, 1]
    for k in order:
        larger = [max(pair) for pair in zip(sizes, listed[k], strict=True)]
        full = (len(group) + 1) * prod(larger) * channels > ENTRIES
        if group and (full or prod(larger) > 4 * max(prod(listed[group[0]]), 64)):
            yield counts.new_tensor(group), sizes
            group, larger = [], listed[k]
        group.append(k)
        sizes = larger
    if group:
        yield counts.new_tensor(group), sizes


def flat_index(batch: Tensor, voxels: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Indices (K, z, y, x) into a flattened (N, *shape), from batch indices (K,) and voxels (K, size) per axis."""
    index = batch.view(-1, 1, 1, 1)
    for axis, (along, length) in enumerate(zip(voxels, shape, strict=True)):
        view = [len(along), 1, 1, 1]
        view[axis + 1] = along.shape[1]
        index = index * length + along.view(view)
    return index
