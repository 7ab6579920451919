"""Neurites: soft discs that drift and jostle from section to section, and the cells that they claim.

Each neurite is a disc (centre, radius) per section. From one section to the next it drifts along the flow of its
surroundings and on a way of its own, its calibre swells and shrinks, and discs that overlap push each other apart.
A voxel belongs to the disc of least power distance, |p - centre|^2 - radius^2, so cells touch without a gap and
keep the size of their disc. A disc that moves fast is cut lengthwise: it claims a chain of discs along its step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from deepem.data.synth.fields import Field, Labels, Plane
from deepem.utils.geometry import Vec3

MARGIN = 60
"""Voxels of tissue around the volume, so that neurites can enter and leave it."""

COARSE = 4
"""Spacing in voxels of the points at which the nearest discs are searched; between them, only these are compared."""


@dataclass(frozen=True)
class Discs:
    """The discs of one section: centre (n, 2) in (y, x) voxels, radius (n,) voxels and cell id (n,) from 1 on."""

    centre: NDArray[np.float32]
    radius: NDArray[np.float32]
    cell: NDArray[np.int32]


@dataclass(frozen=True)
class Neurites:
    """The course of every neurite: centre (Z, N, 2) and radius (Z, N); neurite n has the cell id n + 1."""

    centre: NDArray[np.float32]
    radius: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of neurites, including those that never enter the volume."""
        return int(self.centre.shape[1])

    def discs(self, z: int) -> Discs:
        """Return the discs of section z; a neurite that runs within the section has a chain of discs."""
        centre, radius = self.centre[z], self.radius[z]
        before = self.centre[max(z - 1, 0)]
        after = self.centre[min(z + 1, len(self.centre) - 1)]
        step = (after - before) / 2
        links = np.ceil(np.linalg.norm(step, axis=1) / radius).astype(int).clip(1, 12)
        cell = np.repeat(np.arange(len(centre)), links)
        order = np.arange(len(cell)) - np.repeat(np.cumsum(links) - links, links)
        along = (order + 0.5) / links[cell] - 0.5
        chain = centre[cell] + along[:, None].astype(np.float32) * step[cell]
        return Discs(chain.astype(np.float32), radius[cell], (cell + 1).astype(np.int32))


def grow(rng: np.random.Generator, size: Vec3, calibre: float = 17.0) -> Neurites:
    """Fill a volume with neurites.

    Args:
        rng: The generator.
        size: (z, y, x) voxels.
        calibre: Median radius in voxels; radii spread log-normally around it.
    """
    low, high = np.full(2, -MARGIN), np.array(size[1:]) + MARGIN
    radius = _radii(rng, float(np.prod(high - low)), calibre)
    centre = rng.uniform(low, high, (len(radius), 2))
    for _ in range(60):
        centre = _apart(centre, radius, low, high)
    flow = [Field.draw(rng, (size[0], *(high - low)), 96, 6) for _ in range(2)]
    own = _walk(rng, size[0], len(radius))
    swell = ndimage.gaussian_filter1d(rng.standard_normal((size[0] + 1, len(radius))), 4, axis=0) * 3.2
    centres, radii = [], []
    for z in range(size[0]):
        now = radius * np.exp(0.16 * swell[z])
        node = ((centre - low) / 96 + 1).astype(int)
        shared = np.stack([f.coarse[z, node[:, 0], node[:, 1]] for f in flow], axis=1)
        centre = centre + 1.3 * shared + own[z]
        for _ in range(3):
            centre = _apart(centre, now, low, high)
        centres.append(centre)
        radii.append(now)
    return Neurites(np.array(centres, np.float32), np.array(radii, np.float32))


def _radii(rng: np.random.Generator, area: float, calibre: float) -> NDArray[np.float64]:
    """Draw log-normal radii, largest first, until their discs cover the area."""
    count = int(area / (np.pi * calibre**2)) + 8
    radius = np.exp(rng.normal(np.log(calibre), 0.6, count)).clip(0.35 * calibre, 3.6 * calibre)
    enough = int(np.searchsorted(np.cumsum(np.pi * radius**2), area)) + 1
    return np.asarray(radius[:enough])


def _walk(rng: np.random.Generator, sections: int, count: int) -> NDArray[np.float64]:
    """Each neurite's own step per section, (Z, N, 2) voxels: its direction turns slowly, a few run almost flat."""
    turn = ndimage.gaussian_filter1d(rng.standard_normal((sections, count)), 5, axis=0, mode="nearest") * 1.8
    angle = rng.uniform(0, 2 * np.pi, count) + turn
    speed = rng.lognormal(np.log(1.3), 0.6, count).clip(0, 6)
    flat = rng.random(count) < 0.03
    speed[flat] = rng.uniform(10, 24, int(flat.sum()))
    return np.asarray(speed[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1))


def _apart(
    centre: NDArray[np.float64], radius: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.float64]:
    """One step of pushing overlapping discs apart, the smaller one further; kept within [low, high)."""
    pairs = cKDTree(centre).query_pairs(float(np.quantile(radius, 0.98)) * 1.9, output_type="ndarray")
    first, second = pairs.T
    apart = centre[first] - centre[second]
    distance = np.linalg.norm(apart, axis=1) + 1e-6
    overlap = (0.92 * (radius[first] + radius[second]) - distance).clip(0)
    push = (0.5 * overlap / distance)[:, None] * apart
    share = (radius[second] / (radius[first] + radius[second]))[:, None]
    moved = centre.copy()
    np.add.at(moved, first, push * share)
    np.add.at(moved, second, push * (share - 1))
    return np.asarray(moved.clip(low + 1, high - 1))


def cells(discs: Discs, y: Plane, x: Plane) -> Labels:
    """Return the cell with the smallest power distance at each position of a section.

    Args:
        discs: The discs of the section.
        y: (Y, X) y-coordinate that each voxel looks up; smooth.
        x: (Y, X) x-coordinate likewise.
    """
    weight = discs.radius**2
    lift = np.sqrt(weight.max() - weight)
    tree = cKDTree(np.column_stack([discs.centre, lift]))
    height, width = y.shape
    rows, columns = (np.arange(0, n + COARSE, COARSE).clip(max=n - 1) for n in (height, width))
    nodes = np.ix_(rows, columns)
    at = np.stack([y[nodes], x[nodes], np.zeros_like(y[nodes])], axis=-1)
    nearest = tree.query(at)[1].astype(np.int32)
    best = np.full(y.shape, np.inf, np.float32)
    claim = np.zeros(y.shape, np.int32)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner = nearest[shift[0] :, shift[1] :]
        found = corner.repeat(COARSE, 0)[:height].repeat(COARSE, 1)[:, :width]
        distance = (y - discs.centre[found, 0]) ** 2 + (x - discs.centre[found, 1]) ** 2 - weight[found]
        closer = distance < best
        best = np.where(closer, distance, best)
        claim = np.where(closer, found, claim)
    return discs.cell[claim]
