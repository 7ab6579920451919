"""A mask volume behind cloud-volume, aligned with an image by their positions in nanometres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepem.io.chunks import bounds_of, get, voxel_size_of
from deepem.io.precomputed import CloudSource, open_volume
from deepem.io.volume import Array, VoxelSize
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3


class CloudMask:
    """A mask on the voxels of an image: true where a volume of any type, such as a segmentation, is above 0.

    The resolutions of mask and image may differ by integer factors, and the mask may begin elsewhere::

        image, 4 nm   | 0 | 1 | 2 | 3 | 4 | 5 |        voxel v of the image lies in
        mask, 8 nm            |   1   |   2   |        voxel v // 2 of the mask

    Nothing is masked outside the mask volume. A finer mask covers an image voxel if it covers any part of it.

    Args:
        path: The path of the mask volume.
        image: The image to mask.

    Raises:
        InputError: no level of the mask matches the image's voxel size by integer factors.
    """

    channels = 1

    def __init__(self, path: str, image: CloudSource) -> None:
        self.name, self.size, self.origin, self.voxel_size_nm = path, image.size, image.origin, image.voxel_size_nm
        self.volume = open_volume(path, fill_missing=True, bounded=True)
        self.volume.mip, self.coarser, self.finer = self._level(image)
        self.bounds = bounds_of(self.volume)

    def _level(self, image: CloudSource) -> tuple[int, Vec3, Vec3]:
        """Return the level whose voxel size is nearest to the image's, and the factors between the two."""
        fits: list[tuple[int, int, Vec3, Vec3]] = []
        sizes: list[VoxelSize] = []
        for mip in range(len(self.volume.info["scales"])):
            self.volume.mip = mip
            sizes.append(voxel_size_of(self.volume))
            pairs = list(zip(sizes[-1], image.voxel_size_nm, strict=True))
            coarser, finer = ([max(1, round(a / b)) for a, b in each] for each in (pairs, [(b, a) for a, b in pairs]))
            if all(abs(a * f / (b * c) - 1) < 1e-3 for (a, b), c, f in zip(pairs, coarser, finer, strict=True)):
                off = int(np.prod(coarser)) * int(np.prod(finer))
                fits.append((off, mip, vec3(coarser), vec3(finer)))
        if not fits:
            told = ", ".join(map(str, sizes))
            wants = f"those of {image.name}, {image.voxel_size_nm} nm, times or by whole numbers"
            raise InputError(self.name, f"a mask with voxels of {told} nm", wants)
        return min(fits)[1:]

    def read(self, box: Box) -> Array:
        """Return a box, relative to the image's origin, as (1, Z, Y, X): 1 where any channel is above 0, else 0."""
        there = box.shift(self.origin)
        factors = list(zip(*there, self.coarser, self.finer, strict=True))
        begin, end = vec3(b * f // c for b, _, c, f in factors), vec3(-(-e * f // c) for _, e, c, f in factors)
        mask = self._covered(Box(begin, end))
        for axis, (coarse, fine) in enumerate(zip(self.coarser, self.finer, strict=True)):
            if fine > 1:
                shape = (*mask.shape[:axis], mask.shape[axis] // fine, fine, *mask.shape[axis + 1 :])
                mask = np.asarray(mask.reshape(shape).any(axis + 1))
            mask = np.repeat(mask, coarse, axis)
        first = (b - n * c if c > 1 else 0 for b, n, c in zip(there.begin, begin, self.coarser, strict=True))
        z, y, x = Box.of_size(first, box.size).slices()
        return np.asarray(mask[None, z, y, x], np.uint8)

    def _covered(self, box: Box) -> NDArray[np.bool_]:
        """Return whether each voxel of a box of the mask volume is above 0; False outside the volume."""
        found = np.zeros(box.size, bool)
        inside = box.intersect(self.bounds)
        if inside is not None:
            z, y, x = inside.shift(-b for b in box.begin).slices()
            found[z, y, x] = np.any(get(self.volume, inside) > 0, 0)
        return found
