"""Anchors: boxes of fixed sizes and shapes around every cell of a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepem.models.detection.transform import ImageList
from deepem.utils.errors import InputError

Levels = Sequence[Sequence[float]]


class AnchorGenerator(nn.Module):
    """Generate the anchors of all feature maps.

    An anchor of size s, aspect ratio a and z ratio r is s * r long in z, s * sqrt(a) in y and s / sqrt(a) in x. It is
    centred on the corner of its cell. As in torchvision, half of each side is rounded to whole voxels; a side is at
    least one voxel.

    Args:
        sizes: For each map, the sizes s.
        aspect_ratios: For each map, the ratios a of y to x.
        aspect_ratios_z: For each map, the ratios r of z to s; by default 1.
        voxel_size: (z, y, x) of a voxel in the unit of `sizes`, such as nm; by default sizes are in voxels.
    """

    def __init__(
        self,
        sizes: Levels = ((128, 256, 512),),
        aspect_ratios: Levels = ((0.5, 1.0, 2.0),),
        aspect_ratios_z: Levels | None = None,
        *,
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        ratios_z = [(1.0,)] * len(sizes) if aspect_ratios_z is None else aspect_ratios_z
        if not len(sizes) == len(aspect_ratios) == len(ratios_z):
            got = f"{len(sizes)} sizes, {len(aspect_ratios)} aspect_ratios, {len(ratios_z)} aspect_ratios_z"
            raise InputError("anchors", got, "one entry of each for every feature map")
        positive = [value for levels in (sizes, aspect_ratios, ratios_z) for level in levels for value in level]
        if min([*positive, *voxel_size], default=0) <= 0 or not all(map(len, (*sizes, *aspect_ratios, *ratios_z))):
            raise InputError("anchors", [*sizes, *aspect_ratios, *ratios_z], "sizes and ratios above 0, one at least")
        self.voxel_size = tuple(voxel_size)
        self.cells = [
            self.generate(*level, voxel_size=self.voxel_size)
            for level in zip(sizes, aspect_ratios, ratios_z, strict=True)
        ]

    @staticmethod
    def generate(
        sizes: Sequence[float],
        aspect_ratios: Sequence[float],
        aspect_ratios_z: Sequence[float] = (1.0,),
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> Tensor:
        """(A, 6): the anchors of a cell at the origin, ordered by z ratio, aspect ratio and size."""
        axes = [torch.tensor(list(values), dtype=torch.float32) for values in (aspect_ratios_z, aspect_ratios, sizes)]
        z, a, s = torch.meshgrid(*axes, indexing="ij")
        sides = torch.stack([(s * z).flatten(), (s * a.sqrt()).flatten(), (s / a.sqrt()).flatten()], 1)
        half = (sides / torch.tensor(voxel_size, dtype=torch.float32) / 2).round().clamp(min=0.5)
        return torch.cat([-half, half], 1)

    def num_anchors_per_location(self) -> list[int]:
        """Number of anchors per cell of each map."""
        return [len(cell) for cell in self.cells]

    def forward(self, image_list: ImageList, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of each image, (K, 6) float32, over all maps, ordered by map, cell (z, y, x) and shape."""
        if len(feature_maps) != len(self.cells):
            raise InputError(
                "anchors", f"sizes for {len(self.cells)} feature maps", f"{len(feature_maps)}, as there are"
            )
        size = image_list.tensors.shape[2:]
        found = []
        for features, cell in zip(feature_maps, self.cells, strict=True):
            steps = [
                torch.arange(n, dtype=torch.float32, device=features.device) * (length // n)
                for n, length in zip(features.shape[2:], size, strict=True)
            ]
            corner = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 1, 3)
            found.append((corner.repeat(1, 1, 2) + cell.to(features.device)).reshape(-1, 6))
        anchors = torch.cat(found)
        return [anchors for _ in image_list.image_sizes]
