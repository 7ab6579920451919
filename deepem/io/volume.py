"""Metadata of a volume, and the interface of all volumes that can be read in boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepem.utils.geometry import Box, Vec3

Array = NDArray[Any]

VoxelSize = tuple[float, float, float]
"""(z, y, x) nanometres, not always integers."""


@dataclass(frozen=True)
class VolumeInfo:
    """Metadata of a volume.

    Attributes:
        name: The file or address, as named in errors.
        size: (z, y, x) voxels.
        dtype: The stored dtype.
        channels: Number of channels.
        axes: Axes of the stored array, such as ``zyx`` or ``czyx``.
        voxel_size_nm: (z, y, x), or None if unknown.
        offset: Position of the first voxel, (z, y, x), in voxels of this volume.
        mask: Path of the mask volume, which defines the voxels that count; None if there is none.
        label_factor: (z, y, x) voxels of labels and masks per voxel of the image.
    """

    name: str
    size: Vec3
    dtype: np.dtype[Any]
    channels: int = 1
    axes: str = "zyx"
    voxel_size_nm: VoxelSize | None = None
    offset: Vec3 = (0, 0, 0)
    mask: str | None = None
    label_factor: Vec3 = (1, 1, 1)

    @property
    def bounds(self) -> Box:
        """The box of the volume, in its own voxels."""
        return Box.of_size(self.offset, self.size)


class Volume(Protocol):
    """An image that can be read in boxes.

    Attributes:
        name: The name to use in errors.
        size: (z, y, x) voxels.
        channels: Number of channels.
        origin: Position of its first voxel in the stored volume.
        voxel_size_nm: (z, y, x), or None if unknown.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> Vec3: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def origin(self) -> Vec3: ...  # noqa: D102
    @property
    def voxel_size_nm(self) -> VoxelSize | None: ...  # noqa: D102

    def read(self, box: Box) -> Array:
        """Read a box as (C, Z, Y, X) uint8 or float32."""
