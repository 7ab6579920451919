"""What a volume is, and what everything that can be read in boxes offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepem.utils.geometry import Box, Vec3

Array = NDArray[Any]

VoxelSize = tuple[float, float, float]
"""(z, y, x) nanometres; not always whole numbers."""


@dataclass(frozen=True)
class VolumeInfo:
    """What a volume is.

    Attributes:
        name: What an error names: the file, or the address.
        size: (z, y, x) voxels.
        dtype: As stored.
        channels: Number of channels.
        axes: Of the array as it is stored, such as ``zyx`` or ``czyx``.
        voxel_size_nm: (z, y, x), or None where it is not known.
        offset: Where the first voxel lies, (z, y, x), in voxels of the volume's own size.
        mask: The path of the volume that says which voxels count, if there is one.
        label_factor: Voxels of the labels and their masks per voxel of the image, (z, y, x).
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
        """Where the volume lies, in voxels of its own size."""
        return Box.of_size(self.offset, self.size)


class Volume(Protocol):
    """An image that can be read in boxes.

    Attributes:
        name: What an error names.
        size: (z, y, x) voxels.
        channels: Number of channels.
        origin: Where its first voxel lies in the stored volume.
        voxel_size_nm: (z, y, x), or None where it is not known.
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
        """The box as (C, Z, Y, X) uint8 or float32."""
