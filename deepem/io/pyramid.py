"""Levels of lower resolution for volumes behind cloud-volume."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.io.chunks import bounds_of, get, put, voxel_size_of, zyx
from deepem.io.volume import Array, VoxelSize
from deepem.utils.geometry import Box, Tiles, Vec3, vec3


def downsample(path: str, levels: int | None = None) -> int:
    """Add levels of lower resolution, and return the total number of levels.

    Each voxel is the mean of the finer voxels that it covers. Resolution halves along every axis whose voxels are
    shorter than twice the shortest, so that voxels become isotropic and stay so: 4,4,40 nm becomes 8,8,40 nm, and
    4,4,4 nm becomes 8,8,8 nm (x, y, z). Class numbers (volumes of type "segmentation") cannot be averaged, so the first
    of the finer voxels is used. By default, levels are added until one is no larger than a chunk in x or y.
    """
    from cloudvolume import CloudVolume

    options: dict[str, Any] = {"progress": False, "compress": False, "fill_missing": True}
    mip = 0
    while levels is None or mip < levels:
        fine = CloudVolume(path, mip=mip, **options)
        if any(n <= c for n, c in zip(fine.volume_size[:2], fine.chunk_size[:2], strict=True)):
            break
        factor = factor_of(voxel_size_of(fine))
        fine.add_scale([round(float(r)) * f for r, f in zip(fine.downsample_ratio, factor[::-1], strict=True)])
        fine.commit_info()
        coarse = CloudVolume(path, mip=mip + 1, **options)
        step = vec3(c * n for c, n in zip(zyx(coarse.chunk_size), (1, 8, 8), strict=True))
        for box in Tiles(bounds_of(coarse), step):
            put(coarse, box, _mean(fine, box, factor))
        mip += 1
    return mip + 1


def factor_of(voxel_size_nm: VoxelSize) -> Vec3:
    """Return the (z, y, x) factors to the next coarser level: 2 along axes with voxels shorter than twice the shortest.

    The other factors are 1.
    """
    shortest = min(voxel_size_nm)
    return vec3(2 if size < 2 * shortest * (1 - 1e-6) else 1 for size in voxel_size_nm)


def _mean(fine: Any, box: Box, factor: Vec3) -> Array:
    """Return the mean of the finer voxels in each voxel or, for classes, the first of them.

    Beyond the end of the finer level, its last voxels are repeated.
    """
    first, last = bounds_of(fine)
    begin = vec3(max(f * b, n) for b, n, f in zip(box.begin, first, factor, strict=True))
    end = vec3(min(f * e, n) for e, n, f in zip(box.end, last, factor, strict=True))
    array = get(fine, Box(begin, end))
    widths = [(b - f * n, f * m - e) for b, e, n, m, f in zip(begin, end, *box, factor, strict=True)]
    array = np.pad(array, [(0, 0), *widths], mode="edge")
    if fine.layer_type == "segmentation":
        z, y, x = factor
        return np.ascontiguousarray(array[:, ::z, ::y, ::x])
    shape = [n for size, f in zip(box.size, factor, strict=True) for n in (size, f)]
    mean = array.reshape(array.shape[0], *shape).mean((2, 4, 6), dtype=np.float32)
    return np.rint(mean).astype(np.uint8) if array.dtype == np.uint8 else np.asarray(mean)
