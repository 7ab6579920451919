"""Blend weights: separable, and of all patches that cover a voxel summing to 1.

A bump is a product of one factor per axis, and so is its sum over a grid of patches. Each axis is therefore normalised
on its own, w_i(x) = f(x - s_i) / sum_j f(x - s_j) over the patches j that cover x, and the weight of a patch is the
product of its three axes. Factors are as small as exp(-4000), so this happens in log space and float64. With weights
that sum to 1 the output is one running sum: no normalisation volume, no division at the end.

A mask (the crust of ``wu_no_crust``, the planes of an edge without partner inside the patch) is a factor of zero on one
axis, and normalised alike. Voxels that a mask leaves without any weight take the unmasked weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from deepem.scan.grid import Grid
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

BUMPS = ("zung", "wu", "wu_no_crust")
BLENDS = ("bump", "mean", "precomputed", "none")


LEAST = 1e-12
"""Weights along an axis below this one are 0: they change nothing, but products of three would be subnormal numbers,
which processors multiply slowly."""

Near = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Starts of the patches that overlap one, along (z, y, x), relative to its own."""


@dataclass(frozen=True)
class Blend:
    """How patches are blended.

    Attributes:
        profile: One of BUMPS, ``mean`` (all alike), or ``last`` (the last patch that covers a voxel counts alone).
        edges: For each channel of an output, the edge whose partnerless planes carry no weight.
    """

    profile: str = "zung"
    edges: tuple[Vec3, ...] | None = None

    @property
    def masked(self) -> bool:
        """Whether some voxels of a patch carry no weight."""
        return self.edges is not None or self.profile == "wu_no_crust"


def choose_profile(blend: str | None, bump: str, grid: Grid) -> str:
    """The profile of a ``blend`` and ``bump`` as named on the command line.

    ``precomputed`` is the exact bump. ``none`` (or an empty word) averages where patches overlap by design; without an
    overlap the last patch wins where the flush one laps over.
    """
    blend = blend or "none"
    if blend not in BLENDS:
        raise InputError("blend", blend, f"one of {', '.join(BLENDS)}")
    if bump not in BUMPS:
        raise InputError("bump", bump, f"one of {', '.join(BUMPS)}")
    if blend == "none":
        return "last" if grid.stride == grid.output else "mean"
    return "mean" if blend == "mean" else bump


def log_profile(length: int, profile: str) -> NDArray[np.float64]:
    """Log of one axis' factor at each voxel of a patch.

    zung: -(t (1 - t))^-1.5, t = (i + 1) / (n + 1). wu: -1 / (1 - s^2), s = 2 t - 1. wu_no_crust: wu, its first and
    last voxel zero. mean: 1 everywhere.
    """
    t = np.arange(1, length + 1) / (length + 1)
    if profile == "zung":
        return np.asarray(-((t * (1 - t)) ** -1.5))
    if profile in ("wu", "wu_no_crust"):
        log = -1 / (1 - (2 * t - 1) ** 2)
        if profile == "wu_no_crust":
            log[[0, -1]] = -np.inf
        return log
    return np.zeros(length)


AxisWeights = tuple[NDArray[np.float32], NDArray[np.bool_]]


@lru_cache(maxsize=4096)
def axis_weights(neighbours: tuple[int, ...], length: int, profile: str, edge: int = 0) -> AxisWeights:
    """Weights of one patch along one axis, and where any patch has weight at all.

    Args:
        neighbours: Starts of all patches that overlap it, itself included, relative to its own.
        length: Length of a patch.
        profile: As in `Blend`.
        edge: Component of the channel's edge: a positive one takes the first voxels' weight, a negative one the last's.
    """
    if profile == "last":
        last = np.ones(length, bool)
        for start in neighbours:
            if start > 0:
                last[start:] = False
        return last.astype(np.float32), np.ones(length, bool)
    own = log_profile(length, profile)
    own[slice(None, edge) if edge >= 0 else slice(max(length + edge, 0), None)] = -np.inf
    every = np.full((len(neighbours), length), -np.inf)
    for row, start in zip(every, neighbours, strict=True):
        row[max(start, 0) : length + min(start, 0)] = own[max(-start, 0) : length - max(start, 0)]
    highest = every.max(0)
    alive = np.isfinite(highest)
    highest[~alive] = 0
    total = np.exp(every - highest).sum(0)
    weights = np.where(alive, np.exp(own - highest) / np.where(alive, total, 1), 0)
    weights[weights < LEAST] = 0
    return weights.astype(np.float32), alive


KEPT = 4
"""Arrays of weights that are kept: those of a row of patches, of which all but the first and the last are alike."""


class Weights:
    """The weights of each patch of a grid, on a device; the last ones are kept, since rows of patches share them."""

    def __init__(self, grid: Grid, blend: Blend, device: torch.device | str = "cpu") -> None:
        self.grid, self.blend, self.device = grid, blend, torch.device(device)
        self._shape = (len(blend.edges) if blend.edges is not None else 1, *grid.output)
        self._made: dict[Near, torch.Tensor] = {}
        self._there: dict[tuple[object, ...], torch.Tensor] = {}  # of an axis; copying it to a GPU waits for the GPU

    def of(self, index: Sequence[int]) -> torch.Tensor:
        """(1 or C, Z, Y, X) float32 weights of the patch at (z, y, x) on the grid, valid until the next call."""
        z, y, x = (a.neighbours(i) for a, i in zip(self.grid.axes, index, strict=True))
        key = z, y, x
        if key not in self._made:
            full = len(self._made) >= max(KEPT // self._shape[0], 1)
            made = self._made.pop(next(iter(self._made))) if full else torch.empty(self._shape, device=self.device)
            for channel, edge in zip(made, self.blend.edges or [(0, 0, 0)], strict=True):
                self._fill(channel, key, edge)
            self._made[key] = made
        return self._made[key]

    def _fill(self, out: torch.Tensor, key: Near, edge: Vec3) -> None:
        weights = self._outer(out, key, self.blend.profile, edge)
        if all(alive.all() for _, alive in weights):
            return
        profile = "wu" if self.blend.profile == "wu_no_crust" else self.blend.profile
        plain = torch.empty_like(out)
        self._outer(plain, key, profile, (0, 0, 0))
        z, y, x = (torch.from_numpy(alive).to(self.device) for _, alive in weights)
        torch.where(z[:, None, None] & y[:, None] & x, out, plain, out=out)

    def _outer(self, out: torch.Tensor, key: Near, profile: str, edge: Vec3) -> list[AxisWeights]:
        """Fill in the product of the axes, and give what it is of."""
        found, there = [], []
        for near, axis, component in zip(key, self.grid.axes, edge, strict=True):
            asked = near, axis.output, profile, component
            found.append(axis_weights(*asked))
            if asked not in self._there:
                self._there[asked] = torch.from_numpy(found[-1][0]).to(self.device)
            there.append(self._there[asked])
        z, y, x = there
        torch.mul(z[:, None, None], y[:, None] * x, out=out)
        return found
