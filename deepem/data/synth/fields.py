"""Random generators, smooth random fields and distances: the building blocks of synthetic tissue."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepem.utils.geometry import Vec3

Plane = NDArray[np.float32]
Labels = NDArray[np.int32]


def stream(name: str, part: str) -> np.random.Generator:
    """Return the random generator of one part of a volume, independent of the machine and of the other parts."""
    digest = hashlib.sha256(f"{name}/{part}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))


@dataclass(frozen=True)
class Field:
    """A smooth random field over a volume, of mean 0 and standard deviation 1, kept on a coarse grid.

    Attributes:
        coarse: (Z, y, x), one node every `step` voxels in plane, with one node to spare on each side.
        step: Voxels between nodes; the field changes over about twice that.
        size: (z, y, x) of the volume.
    """

    coarse: NDArray[np.float32]
    step: int
    size: Vec3

    @classmethod
    def draw(cls, rng: np.random.Generator, size: Vec3, step: int, sections: float) -> Field:
        """A field that changes over `step` voxels in plane and over `sections` sections along z."""
        nodes = (size[0], *(-(-n // step) + 4 for n in size[1:]))
        noise = rng.standard_normal(nodes, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, (sections, 0.7, 0.7), mode="nearest")
        noise -= noise.mean()
        return cls(noise / max(float(noise.std()), 1e-6), step, size)

    def section(self, z: int) -> Plane:
        """The field in section z, (Y, X)."""
        _, height, width = self.size
        fine: Plane = cv2.resize(self.coarse[z], None, fx=self.step, fy=self.step, interpolation=cv2.INTER_CUBIC)
        return np.asarray(fine[self.step : self.step + height, self.step : self.step + width])


def white(rng: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Normal noise of standard deviation 1 in one section, every voxel by itself."""
    return rng.standard_normal(shape, dtype=np.float32)


def grain(noise: Plane, sigma: float) -> Plane:
    """White noise blurred over `sigma` voxels and brought back to a standard deviation of 1."""
    blurred: Plane = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    # A blurred white noise keeps 1 / (4 pi sigma^2) of its variance.
    return np.asarray(blurred * np.float32(2 * np.sqrt(np.pi) * sigma))


def boundary(labels: Labels) -> NDArray[np.uint8]:
    """1 at the voxels of one section that touch another label across a side, (Y, X)."""
    edge = np.zeros(labels.shape, np.uint8)
    for first, second in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
    ):
        differs = labels[first] != labels[second]
        edge[first] |= differs
        edge[second] |= differs
    return edge


def depth(labels: Labels) -> Plane:
    """Voxels from each voxel of one section to the nearest border between two labels, (Y, X).

    Half a voxel at the border itself; a section without borders is as deep as it is wide.
    """
    edge = boundary(labels)
    if not edge.any():
        return np.full(labels.shape, max(labels.shape), np.float32)
    far: Plane = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 5)
    return np.asarray(far + np.float32(0.5))


def scatter(shape: tuple[int, int], at: NDArray[Any], stamp: Plane) -> Plane:
    """The sum of a small stamp of odd sides centred on each position (n, 2), rounded; clipped at the border."""
    canvas = np.zeros(shape, np.float32)
    half_y, half_x = stamp.shape[0] // 2, stamp.shape[1] // 2
    dy, dx = np.mgrid[-half_y : half_y + 1, -half_x : half_x + 1]
    at = np.rint(np.asarray(at)).astype(np.int64).reshape(-1, 2)
    y = at[:, :1] + dy.ravel()
    x = at[:, 1:] + dx.ravel()
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    values = np.broadcast_to(stamp.ravel(), y.shape)[inside]
    np.add.at(canvas, (y[inside], x[inside]), values)
    return canvas


def window(centre: Any, reach: float, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Slices of the square of a section within `reach` of a position, or None if it lies outside the section."""
    low = [max(int(c - reach), 0) for c in centre]
    high = [min(int(c + reach) + 1, n) for c, n in zip(centre, shape[-2:], strict=True)]
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    return slice(low[0], high[0]), slice(low[1], high[1])
