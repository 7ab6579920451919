"""Levels of lower resolution for volumes behind cloud-volume."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.io.chunks import bounds_of, get, put, zyx
from deepem.io.volume import Array
from deepem.utils.geometry import Box, Tiles, vec3


def downsample(path: str, levels: int | None = None) -> int:
    """Add levels of half the resolution in x and y, each voxel the mean of four, and return how many there are then.

    Class numbers, in volumes of the type "segmentation", have no mean: one of the four stands for all.
    By default until a level is no larger than a chunk in x or y.
    """
    from cloudvolume import CloudVolume

    options: dict[str, Any] = {"progress": False, "compress": False, "fill_missing": True}
    mip = 0
    while levels is None or mip < levels:
        fine = CloudVolume(path, mip=mip, **options)
        if any(n <= c for n, c in zip(fine.volume_size[:2], fine.chunk_size[:2], strict=True)):
            break
        fine.add_scale(tuple(int(f) for f in 2 ** (mip + 1) * np.array((1, 1, 0)) + (0, 0, 1)))
        fine.commit_info()
        coarse = CloudVolume(path, mip=mip + 1, **options)
        step = vec3(c * n for c, n in zip(zyx(coarse.chunk_size), (1, 8, 8), strict=True))
        for box in Tiles(bounds_of(coarse), step):
            put(coarse, box, _halved(fine, box))
        mip += 1
    return mip + 1


def _halved(fine: Any, box: Box) -> Array:
    """The mean of 2 x 2 voxels in y and x, or the first of them where they are classes.

    Where the finer level ends, those that are there count.
    """
    first, last = zyx(fine.bounds.minpt), zyx(fine.bounds.maxpt)
    begin = (box.begin[0], *(max(2 * b, f) for b, f in zip(box.begin[1:], first[1:], strict=True)))
    end = (box.end[0], *(min(2 * e, t) for e, t in zip(box.end[1:], last[1:], strict=True)))
    array = get(fine, Box(vec3(begin), vec3(end)))
    for axis in (1, 2):
        front, back = begin[axis] - 2 * box.begin[axis], 2 * box.end[axis] - end[axis]
        widths = [(0, 0)] * 4
        widths[axis + 1] = (front, back)
        array = np.pad(array, widths, mode="edge")
    if fine.layer_type == "segmentation":
        return np.ascontiguousarray(array[:, :, ::2, ::2])
    shape = (*array.shape[:2], array.shape[2] // 2, 2, array.shape[3] // 2, 2)
    mean = array.reshape(shape).mean((3, 5), dtype=np.float32)
    return np.rint(mean).astype(np.uint8) if array.dtype == np.uint8 else np.asarray(mean)
