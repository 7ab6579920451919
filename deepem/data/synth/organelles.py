"""Structures inside and between neurites: a blood vessel, mitochondria, microtubules, vesicles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepem.data.synth.fields import Labels, Plane, depth, grain, white
from deepem.data.synth.neurites import Neurites
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class Vessel:
    """A blood vessel that runs along z: centre (Z, 2) and outer radius (Z,) in voxels, and its wall.

    It pushes the tissue aside and preserves area: tissue at distance r from the axis moves to sqrt(r^2 + radius^2).
    """

    centre: NDArray[np.float32]
    radius: NDArray[np.float32]
    wall: float

    @classmethod
    def draw(cls, rng: np.random.Generator, size: Vec3) -> Vessel:
        """Draw a vessel in the outer part of the volume."""
        side = min(size[1:])
        radius = min(0.13 * side, 75.0)
        start = np.array(size[1:]) * np.where(
            rng.random(2) < 0.5, rng.uniform(0.14, 0.26, 2), rng.uniform(0.74, 0.86, 2)
        )
        sway = ndimage.gaussian_filter1d(rng.standard_normal((size[0], 2)), 6, axis=0, mode="nearest") * 4
        swell = ndimage.gaussian_filter1d(rng.standard_normal(size[0]), 6, mode="nearest") * 0.15
        centre = start + np.cumsum(sway, axis=0) * 0.5
        return cls(centre.astype(np.float32), (radius * np.exp(swell)).astype(np.float32), max(2.0, 0.14 * radius))

    def push(self, z: int, y: Plane, x: Plane) -> tuple[Plane, Plane, Plane]:
        """Where the voxels of section z look up the tissue (y, x), and their depth inside the vessel (< 0: outside)."""
        dy, dx = y - self.centre[z, 0], x - self.centre[z, 1]
        square = dy**2 + dx**2 + np.float32(1e-3)
        shrink = np.sqrt((square - self.radius[z] ** 2).clip(0) / square)
        inside = self.radius[z] - np.sqrt(square)
        return self.centre[z, 0] + dy * shrink, self.centre[z, 1] + dx * shrink, inside


@dataclass(frozen=True)
class Mitochondria:
    """Mitochondria, each a sausage inside one neurite.

    Attributes:
        cell: (M,) id of the neurite.
        middle: (M,) section of its centre.
        reach: (M,) sections from there to its ends.
        offset: (M, 2) voxels from the neurite's centre.
        radius: (M, 2) voxels, along and across `angle`.
        angle: (M,) direction of the long axis in the section.
        stripe: (M,) direction of the cristae.
        grey: (M,) grey value of the matrix.
    """

    cell: NDArray[np.int32]
    middle: NDArray[np.float64]
    reach: NDArray[np.float64]
    offset: NDArray[np.float64]
    radius: NDArray[np.float64]
    angle: NDArray[np.float64]
    stripe: NDArray[np.float64]
    grey: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, neurites: Neurites, size: Vec3) -> Mitochondria:
        """Place mitochondria one after another along each neurite that is wide enough."""
        typical = neurites.radius.mean(axis=0)
        cell, middle, reach = [], [], []
        for n in np.flatnonzero(typical > 12):
            z = rng.uniform(-30, 8)
            while z < size[0] + 12:
                half = rng.uniform(3, 13)
                cell.append(n)
                middle.append(z + half)
                reach.append(half)
                z += 2 * half + rng.exponential(26)
        count = len(cell)
        room = typical[np.array(cell, int)]
        across = (room * rng.uniform(0.34, 0.56, count)).clip(5, 22)
        return cls(
            cell=np.array(cell, np.int32) + 1,
            middle=np.array(middle),
            reach=np.array(reach),
            offset=rng.uniform(-0.4, 0.4, (count, 2)) * room[:, None],
            radius=np.stack([across * rng.uniform(1.0, 2.0, count), across], axis=1),
            angle=rng.uniform(0, np.pi, count),
            stripe=rng.uniform(0, np.pi, count),
            grey=rng.normal(88, 8, count).clip(72, 106),
        )

    def paint(
        self, rng: np.random.Generator, z: int, neurites: Neurites, seg: Labels, at: tuple[Plane, Plane]
    ) -> Plane:
        """Return the grey values of the mitochondria in section z, (Y, X), 0 elsewhere."""
        grey = np.zeros(seg.shape, np.float32)
        deep = depth(seg)
        boxes = ndimage.find_objects(seg, max_label=neurites.count)
        along = (z - self.middle) / self.reach
        for m in np.flatnonzero(np.abs(along) < 1):
            scale = (1 - along[m] ** 4) ** 0.5
            centre = neurites.centre[z, self.cell[m] - 1] + self.offset[m]
            where = boxes[self.cell[m] - 1]
            if where is None:
                continue
            dy, dx = at[0][where] - centre[0], at[1][where] - centre[1]
            cos, sin = np.cos(self.angle[m]), np.sin(self.angle[m])
            u = (dy * cos + dx * sin) / (self.radius[m, 0] * scale + 1e-3)
            v = (dx * cos - dy * sin) / (self.radius[m, 1] * scale + 1e-3)
            r = np.sqrt(u**2 + v**2)
            inside = (r**4 + (5 / deep[where]) ** 4 < 1) & (seg[where] == self.cell[m])
            if not inside.any():
                continue
            rim = depth(inside.astype(np.int32))
            wave = (dy * np.sin(self.stripe[m]) + dx * np.cos(self.stripe[m])) * 0.75
            wave = wave + 1.6 * grain(white(rng, inside.shape), 5.0)
            cristae = np.exp(3.0 * (np.cos(wave) - 1))
            value = self.grey[m] - 26 * cristae * (rim > 2) - 34 * np.exp(-(((rim - 0.5) / 1.5) ** 2))
            grey[where] = np.where(inside, value, grey[where])
        return grey


def ring(radius: float, width: float) -> Plane:
    """A stamp of a dark ring, value 1 on it: a vesicle cut through its middle."""
    half = int(np.ceil(radius + 2 * width))
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    return np.asarray(np.exp(-(((np.hypot(dy, dx) - radius) / width) ** 2)), np.float32)


def dot(width: float) -> Plane:
    """A stamp of a dot, value 1 in its centre: a microtubule cut across."""
    return ring(0.0, width)
