"""Samples whose voxels know where they come from, so that whatever moved can be told from the voxels alone.

The voxel at (z, y, x), relative to the centre voxel that all arrays share, is in an image of three channels the grey
values 0.5 + (z, y, x) / 256, in a segmentation the id whose bits are z, y and x, in a mask a hash of the three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.data.transform import Augment, Sample, Spec
from deepem.utils.crop import centre_crop

STEP = 1 / 256
SIZES = {"img": (9, 40, 41), "seg": (8, 33, 36), "mit": (7, 32, 32)}
SPEC = Spec(SIZES, images=("img",), segs=("seg",))


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


def ids(z: Any, y: Any, x: Any) -> Any:
    """Ids above 2^24 that hold three numbers."""
    return (z + 32 << 24) + (y + 1024 << 12) + (x + 1024)


def where(seg: Any) -> np.ndarray:
    """(3, Z, Y, X): the positions that ids hold."""
    seg = seg[0].astype(np.int64)
    return np.stack([(seg >> 24) - 32, (seg >> 12 & 4095) - 1024, (seg & 4095) - 1024])


def hashed(z: Any, y: Any, x: Any) -> Any:
    return ((7 * z + 3 * y + 5 * x) % 251).astype(np.uint8)


def encode(request: Spec, id_type: type = np.int64) -> Sample:
    """What a volume of encoded voxels gives for a request."""
    sample: Sample = {}
    for key, size in request.size.items():
        z, y, x = np.meshgrid(*[np.arange(n) - n // 2 for n in size], indexing="ij")
        if key in request.images:
            sample[key] = (0.5 + STEP * np.stack([z, y, x])).astype(np.float32)
        elif key in request.segs:
            sample[key] = ids(z, y, x)[None].astype(id_type)
        else:
            sample[key] = hashed(z, y, x)[None]
    return sample


def grey(request: Spec, dtype: Any = np.uint8, seed: int = 0) -> Sample:
    """Images of random grey values, one channel; all else encoded."""
    sample = encode(request)
    for key in request.images:
        values = rng(seed).random((1, *request.size[key]), np.float32)
        sample[key] = (values * 255).astype(np.uint8) if dtype == np.uint8 else values
    return sample


def run(augment: Augment, seed: int = 0, spec: Spec = SPEC, make: Any = encode) -> Sample:
    """One augmented sample."""
    request, apply = augment.prepare(spec, rng(seed))
    return apply(make(request))


def together(sample: Sample, tolerance: float = 0.6) -> bool:
    """Whether image, segmentation and mask still show the same places."""
    common = [min(axis) for axis in zip(*[a.shape[1:] for a in sample.values()], strict=True)]
    inner = {k: centre_crop(a, (common[0], common[1], common[2])) for k, a in sample.items()}
    places = where(inner["seg"])
    seen = (inner["img"] - 0.5) / STEP
    masked = "mit" not in inner or (inner["mit"][0] == hashed(*places)).all()
    return bool(masked and np.abs(seen - places).max() <= tolerance)
