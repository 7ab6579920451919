"""Generate synthetic nuclei, as a light-sheet or confocal microscope shows them, from a name and a size.

Nuclei are touching ellipsoids, each with its own brightness and texture, with the blur of a lens and camera noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepem.data.synth.fields import stream
from deepem.utils.geometry import Box, Vec3, vec3

RADII = (8.0, 14.0, 14.0)
"""Mean half axes of a nucleus, (z, y, x) voxels of 284x127x127 nm."""

DARK = 100
"""Camera counts without light."""

LENS = (1.0, 1.2, 1.2)
"""Standard deviation of the blur, (z, y, x) voxels."""

TRIES = 400
"""Number of places tried for each nucleus."""


def make_nuclei(name: str, size: Vec3, *, density: float = 1.0, contrast: float = 1.0) -> dict[str, NDArray[Any]]:
    """Return the image (Z, Y, X) uint16 and nucleus ids `seg` (Z, Y, X) int32; name and size determine all voxels.

    Args:
        name: Decides everything.
        size: (z, y, x) voxels.
        density: 1 for about 45 nuclei in 100^3 voxels, where many of them touch.
        contrast: Contrast of nuclei against their surroundings; at 1 they are about twice as bright.
    """
    seg = _placed(stream(name, "nuclei"), size, density)
    return {"img": _seen(stream(name, "camera"), seg, contrast), "seg": seg}


def _placed(rng: np.random.Generator, size: Vec3, density: float) -> NDArray[np.int32]:
    """Ids of ellipsoids; where two of them overlap, a voxel is of the one whose middle it is nearer to."""
    wanted = max(round(density * 45e-6 * np.prod(size)), 1)
    near = np.full(size, np.float32(1))  # squared distance from the centre, the surface at 1
    seg, count = np.zeros(size, np.int32), 0
    for _ in range(TRIES * wanted):
        if count == wanted:
            break
        half = np.array(RADII) * rng.lognormal(-0.03, 0.18) * rng.lognormal(0, 0.1, 3)
        centre = rng.uniform(-0.5 * half, np.array(size) + 0.5 * half)
        inside = tuple(np.clip(np.floor(centre), 0, np.array(size) - 1).astype(int))
        if seg[inside] and near[inside] < 0.8:
            continue  # its centre lies deep in another nucleus
        if (box := _around(centre, half, size)) is None:
            continue
        distance = _distance(rng, box, centre, half)
        here = box.slices()
        mine = distance < near[here]
        if mine.sum() < 0.6 * (distance < 1).sum():
            continue
        count += 1
        seg[here][mine], near[here][mine] = count, distance[mine]
    return seg


def _around(centre: NDArray[Any], half: NDArray[Any], size: Vec3) -> Box | None:
    reach = 1.25 * half.max() * np.ones(3)
    begin = np.clip(np.floor(centre - reach), 0, size).astype(int)
    end = np.clip(np.ceil(centre + reach), 0, size).astype(int)
    return Box(vec3(begin), vec3(end)) if (end > begin).all() else None


def _distance(rng: np.random.Generator, box: Box, centre: NDArray[Any], half: NDArray[Any]) -> NDArray[np.float32]:
    """Squared distance from the centre of an ellipsoid that lies at a random angle in the plane, surface at 1."""
    z, y, x = (np.arange(b, e) - c for b, e, c in zip(*box, centre, strict=True))
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x[None] + np.sin(angle) * y[:, None]
    across = np.cos(angle) * y[:, None] - np.sin(angle) * x[None]
    plane = (along / half[2]) ** 2 + (across / half[1]) ** 2
    found: NDArray[np.float32] = ((z / half[0]) ** 2)[:, None, None].astype(np.float32) + plane.astype(np.float32)
    return found


def _seen(rng: np.random.Generator, seg: NDArray[np.int32], contrast: float) -> NDArray[np.uint16]:
    """Return camera counts: blurred light of nuclei and surroundings, with Poisson noise and readout noise."""
    bright = rng.lognormal(0, 0.25, int(seg.max()) + 1).astype(np.float32)
    bright[0] = 0
    texture = ndimage.gaussian_filter(rng.standard_normal(seg.shape, np.float32), (0.8, 1.5, 1.5))
    texture = np.clip(1 + 0.7 * texture / max(float(texture.std()), 1e-6), 0.1, 3)
    haze = ndimage.gaussian_filter(rng.standard_normal(seg.shape, np.float32), (8, 16, 16))
    haze = np.clip(1 + 0.4 * haze / max(float(haze.std()), 1e-6), 0.4, 2)
    light = 5 * haze + 5.5 * contrast * bright[seg] * texture
    light = ndimage.gaussian_filter(light.astype(np.float32), LENS)
    counted = rng.poisson(light) * 40.0 + rng.normal(DARK, 40, seg.shape)
    seen: NDArray[np.uint16] = np.clip(np.rint(counted), 0, 65535).astype(np.uint16)
    return seen
