"""Synapses: contacts between two neurites, with a density on the receiving side and vesicles on the sending one.

One section through a synapse; its labels, and how they are drawn::

        a a a a a a a a       a  presynaptic cell, o its vesicles
        a o a o a o o a
        a 1 1 1 1 1 1 a       1  syn == 1: within SIDE voxels of the contact, in a
        ===============          the contact: where a and b touch
        b # # # # # # b       #  psd, dark: within DENSITY voxels of the contact, in b
        b 2 2 2 2 2 2 b       2  syn == 2: within SIDE voxels of the contact, in b (the density included)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.data.synth.fields import Labels, Plane, window

SIDE = 9.0
DENSITY = 6.0
SPARSE = 300_000
"""Voxels of tissue per synapse."""


@dataclass
class Synapses:
    """The synapses of a volume: labels (Z, Y, X), and what to draw in each section.

    Attributes:
        syn: 0, 1 on the presynaptic and 2 on the postsynaptic side.
        psd: 1 in the postsynaptic density.
        dark: Section -> [(where in it, darkening in grey values)].
        cloud: Section -> positions (n, 2) of vesicles.
    """

    syn: NDArray[np.uint8]
    psd: NDArray[np.uint8]
    dark: dict[int, list[tuple[tuple[slice, slice], Plane]]] = field(default_factory=dict)
    cloud: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)

    @classmethod
    def place(cls, rng: np.random.Generator, seg: Labels, able: NDArray[np.bool_]) -> Synapses:
        """Place synapses on contacts between cells that are `able`, at least one if any such cells touch."""
        made = cls(np.zeros(seg.shape, np.uint8), np.zeros(seg.shape, np.uint8))
        wanted = max(1, round(seg.size / SPARSE))
        taken: list[NDArray[np.int64]] = []
        for _ in range(30):
            for z, y, x in _contacts(rng, seg, able, 4 * wanted):
                here = np.array([10 * z, y, x])
                if len(taken) < wanted and all(np.abs(here - other).max() > 50 for other in taken):
                    first, second = int(seg[z, y, x]), int(seg[z, y, x + 1])
                    pair = (first, second) if rng.random() < 0.5 else (second, first)
                    taken.append(here)
                    made._draw(rng, seg, (int(z), int(y), int(x)), pair)
            if len(taken) == wanted:
                break
        return made

    def _draw(self, rng: np.random.Generator, seg: Labels, at: tuple[int, int, int], pair: tuple[int, int]) -> None:
        reach, thick = rng.uniform(10, 19), rng.uniform(1.6, 3.6)
        for way in (range(at[0], len(seg)), range(at[0] - 1, -1, -1)):
            centre = np.array(at[1:], float)
            for z in way:
                rest = 1 - ((z - at[0]) / thick) ** 2
                moved = self._section(rng, seg[z], z, centre, pair, reach * rest**0.5) if rest > 0 else None
                if moved is None:
                    break
                centre = moved

    def _section(
        self,
        rng: np.random.Generator,
        seg: Labels,
        z: int,
        centre: NDArray[np.float64],
        pair: tuple[int, int],
        reach: float,
    ) -> NDArray[np.float64] | None:
        """Draw one section near a position; return the centre of the contact, or None if the cells do not touch."""
        where = window(centre, reach + 30, seg.shape)
        if where is None:
            return None
        pre, post = seg[where] == pair[0], seg[where] == pair[1]
        if not (pre.any() and post.any()):
            return None
        touch = (_distance(pre) <= 1) & post
        dy, dx = np.mgrid[where]
        near = np.hypot(dy - centre[0], dx - centre[1])
        if not touch.any() or near[touch].min() > 14:
            return None
        first = np.argmin(np.where(touch, near, np.inf))
        middle = np.array([dy.flat[first], dx.flat[first]], float)
        touch &= np.hypot(dy - middle[0], dx - middle[1]) < max(reach, 3)
        gap = _distance(touch)
        side = np.where(pre & (gap <= SIDE), 1, np.where(post & (gap <= SIDE), 2, 0)).astype(np.uint8)
        self.syn[z][where] = np.maximum(self.syn[z][where], side)
        self.psd[z][where] |= post & (gap <= DENSITY)
        dark = np.where(post, 62 * np.exp(-((gap / 4.6) ** 2)), np.where(pre, 34 * np.exp(-((gap / 2.6) ** 2)), 0))
        self.dark.setdefault(z, []).append((where, dark.astype(np.float32)))
        apart = _distance(touch)
        spots = np.argwhere(pre & (apart > 5) & (apart < 32) & (rng.random(pre.shape) < 0.03 * np.exp(-apart / 20)))
        self.cloud.setdefault(z, []).append(np.add(spots, (where[0].start, where[1].start)))
        return middle


def _distance(mask: NDArray[np.bool_]) -> Plane:
    """Return the distance in voxels to the nearest voxel of the mask."""
    return np.asarray(cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _contacts(rng: np.random.Generator, seg: Labels, able: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Draw voxels (n, 3) whose right neighbour belongs to another cell; both cells are able to have a synapse."""
    low = np.array([0, 2, 2])
    high = np.maximum(np.array(seg.shape) - [0, 3, 3], low + 1)
    at = rng.integers(low, high, (count * 40, 3)).clip(max=np.array(seg.shape) - [1, 1, 2])
    z, y, x = at.T
    here, right = seg[z, y, x], seg[z, y, x + 1]
    return np.asarray(at[(here != right) & able[here] & able[right]])
