"""Blend weights: separable, and summing to 1 over all patches that cover a voxel.

A bump is a product of one factor per axis, and so is its sum over a grid of patches. Each axis is therefore normalised
separately, w_i(x) = f(x - s_i) / sum_j f(x - s_j) over the patches j that cover x, and the weight of a patch is the
product over its three axes. Factors can be as small as exp(-4000), so they are computed in log space and float64.
Because the weights sum to 1, the output is one running sum, without a normalisation volume or a final division.

A mask is a factor of zero on one axis: the crust of ``wu_no_crust``, or the planes of the patch in which an edge has no
partner. It is normalised in the same way. Voxels that would have no weight left use the unmasked weights.
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
"""Weights below this along an axis are set to 0. They do not change the result, but products of three such weights
would be subnormal numbers, which processors multiply slowly."""

Near = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Starts of the patches that overlap a given patch, along (z, y, x), relative to the start of that patch."""


@dataclass(frozen=True)
class Blend:
    """How patches are blended.

    Attributes:
        profile: One of BUMPS, ``mean`` (equal weights), or ``last`` (only the last patch that covers a voxel counts).
        edges: One edge per channel; planes of a patch in which the edge has no partner get no weight.
    """

    profile: str = "zung"
    edges: tuple[Vec3, ...] | None = None

    @property
    def masked(self) -> bool:
        """Whether some voxels of a patch get no weight."""
        return self.edges is not None or self.profile == "wu_no_crust"


def choose_profile(blend: str | None, bump: str, grid: Grid) -> str:
    """Return the profile of a ``blend`` and ``bump`` as named on the command line.

    ``precomputed`` is the exact bump. ``none`` (or an empty string) averages patches if an overlap is set. Without an
    overlap, only the patches flush with the volume's end overlap others, and there the last patch wins.
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
    """Return the log of one axis' factor at each voxel of a patch.

    zung: -(t (1 - t))^-1.5, t = (i + 1) / (n + 1). wu: -1 / (1 - s^2), s = 2 t - 1. wu_no_crust: wu with a factor of
    zero at the first and the last voxel. mean: factor 1 everywhere.
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
    """Return the weights of one patch along one axis, and the voxels where any patch has weight.

    Args:
        neighbours: Starts of all patches that overlap this one (itself included), relative to its own start.
        length: Length of a patch.
        profile: As in `Blend`.
        edge: The edge's component on this axis. A positive one removes the weight of the first voxels, a negative one
            that of the last voxels.
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
"""Number of weight arrays to cache. It suffices for a row of patches, where only the first and the last differ."""


class Weights:
    """The weights of each patch of a grid, on a device. Recent arrays are cached: patches of a row share them."""

    def __init__(self, grid: Grid, blend: Blend, device: torch.device | str = "cpu") -> None:
        self.grid, self.blend, self.device = grid, blend, torch.device(device)
        self._shape = (len(blend.edges) if blend.edges is not None else 1, *grid.output)
        self._made: dict[Near, torch.Tensor] = {}
        self._there: dict[tuple[object, ...], torch.Tensor] = {}  # per axis; each copy to a GPU would wait for the GPU

    def of(self, index: Sequence[int]) -> torch.Tensor:
        """Return the (1 or C, Z, Y, X) float32 weights of the patch at (z, y, x) on the grid.

        They are valid until the next call.
        """
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
        """Fill in the product of the axes, and return its factors."""
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
