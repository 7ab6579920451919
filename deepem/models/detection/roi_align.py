"""RoIAlign in 3-D: the mean of trilinearly interpolated features in each bin of a box.

Interpolation and the mean over a bin are both separable. The value of bin (i, j, k) is therefore
``sum over z, y, x of Wz[i, z] Wy[j, y] Wx[k, x] f[z, y, x]``: three small matrix products on the voxels that a box
touches, instead of eight reads for each sample of a bin. Source: He et al. 2017, arXiv:1703.06870. The border,
`sampling_ratio` and `aligned` follow torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2, prod

import torch
from torch import Tensor, nn

from deepem.models.detection.boxes import box_volume
from deepem.models.detection.samples import Axis, flat_index, groups, interpolated
from deepem.utils.errors import InputError


def roi_align(
    input: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool the features of boxes to a fixed size.

    Args:
        input: (N, C, Z, Y, X).
        rois: (K, 7), the batch index and a box (z1, y1, x1, z2, y2, x2) in voxels of the image; or a list of
            (L, 6), one for each sample.
        output_size: Number of bins along (z, y, x), or one number for all.
        spatial_scale: Voxels of `input` per voxel of the image, along (z, y, x) or one number for all.
        sampling_ratio: Samples per bin along each axis; 0 or less takes as many as the bin has voxels, rounded up.
        aligned: The centre of the first voxel is at 0.5, as suits half-open boxes. Otherwise it is at 0, and boxes are
            at least one voxel of `input` long.

    Returns:
        (K, C, *output_size) with the dtype of `input`; computed in float32 or higher.
    """
    rois = _listed(rois, input)
    bins = _triple(output_size)
    kind = torch.float64 if input.dtype == torch.float64 else torch.float32
    corners = rois[:, 1:].detach().to(kind)
    with torch.autocast(input.device.type, enabled=False):
        axes = [
            Axis(corners[:, axis], corners[:, axis + 3], length, count, scale, sampling_ratio, aligned)
            for axis, (length, count, scale) in enumerate(
                zip(input.shape[2:], bins, _scales(spatial_scale), strict=True)
            )
        ]
        rows = input.movedim(1, -1).reshape(-1, input.shape[1])
        pieces, taken = [], []
        for at, sizes in groups(axes, input.shape[1]):
            voxels, weights = zip(*(a.read(at, size) for a, size in zip(axes, sizes, strict=True)), strict=True)
            index = flat_index(rois[at, 0].long(), voxels, input.shape[2:])
            values = rows.index_select(0, index.reshape(-1)).to(kind).reshape(*index.shape, -1)
            pieces.append(interpolated(values, weights))
            taken.append(at)
        if not pieces:
            return rows[:0].reshape(0, *bins, input.shape[1]).movedim(-1, 1)
        back = torch.cat(taken).argsort()
        return torch.cat(pieces)[back].movedim(-1, 1).to(input.dtype)


def align_masks(
    volume: Tensor,
    boxes: Tensor,
    channels: Tensor,
    ids: Tensor,
    output_size: int | Sequence[int],
    sampling_ratio: int = -1,
    aligned: bool = True,
) -> Tensor:
    """`roi_align` of the masks ``volume[channel] == id`` without building them: only voxels in boxes are compared.

    Args:
        volume: (C, Z, Y, X) whole numbers.
        boxes: (K, 6), in voxels of `volume`.
        channels: (K,), the channel of each mask.
        ids: (K,), the id of each mask in that channel.
        output_size: As in `roi_align`.
        sampling_ratio: As in `roi_align`.
        aligned: As in `roi_align`.

    Returns:
        (K, *output_size) float32 in [0, 1].
    """
    bins, corners = _triple(output_size), boxes.detach().float()
    out = corners.new_zeros(len(boxes), *bins)
    with torch.autocast(volume.device.type, enabled=False):
        axes = [
            Axis(corners[:, axis], corners[:, axis + 3], length, count, 1.0, sampling_ratio, aligned)
            for axis, (length, count) in enumerate(zip(volume.shape[1:], bins, strict=True))
        ]
        flat = volume.reshape(-1)
        for at, sizes in groups(axes, 1):
            voxels, weights = zip(*(a.read(at, size) for a, size in zip(axes, sizes, strict=True)), strict=True)
            index = flat_index(channels[at], voxels, volume.shape[1:])
            values = (flat[index] == ids[at].view(-1, 1, 1, 1)).float()[..., None]
            out[at] = interpolated(values, weights)[..., 0]
    return out


class MultiScaleRoIAlign(nn.Module):
    """RoIAlign on a pyramid of feature maps; each box is read from the level that suits its size.

    A box of volume V belongs to level ``floor(canonical_level + log2(cbrt(V) / canonical_scale))``, level k being the
    map of stride 2^k (the cube root of the product of its strides); Lin et al. 2017, arXiv:1612.03144, equation 1.

    Args:
        featmap_names: Names of the maps to use, finest first.
        output_size: Number of bins along (z, y, x), or one number for all.
        sampling_ratio: As in `roi_align`.
        canonical_scale: Side of a cube, in voxels, that belongs to `canonical_level`.
        canonical_level: See above.
        aligned: As in `roi_align`. Boxes are half-open, so it must be true for the features to be those inside the box.
        strides: (z, y, x) voxels of the image per voxel of each map, by name; missing strides are estimated as the
            nearest powers of 2.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: float = 224,
        canonical_level: float = 4,
        aligned: bool = True,
        strides: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.featmap_names = list(featmap_names)
        self.output_size = _triple(output_size)
        self.sampling_ratio = sampling_ratio
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level
        self.aligned = aligned
        self.strides = dict(strides or {})

    def forward(
        self, x: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[Sequence[int]]
    ) -> Tensor:
        """Pool the features of boxes.

        Args:
            x: Name -> (N, C, z, y, x).
            boxes: One (L, 6) per sample, in voxels of the image.
            image_shapes: (z, y, x) of the images; the maps cover the largest, padded to a multiple of their strides.

        Returns:
            (K, C, *output_size) for the boxes of all images, in order.
        """
        maps = [x[name] for name in self.featmap_names if name in x]
        if not maps:
            raise InputError("featmap_names", self.featmap_names, f"one of {', '.join(x)}")
        scales = [self._scale(name, x[name], image_shapes) for name in self.featmap_names if name in x]
        rois = _listed(boxes, maps[0])
        level = self.levels(rois[:, 1:], scales)
        how = (self.sampling_ratio, self.aligned)
        pieces, taken = [], []
        for number, (features, scale) in enumerate(zip(maps, scales, strict=True)):
            at = (level == number).nonzero()[:, 0]
            pieces.append(roi_align(features, rois[at], self.output_size, scale, *how))
            taken.append(at)
        return torch.cat(pieces)[torch.cat(taken).argsort()]

    def levels(self, boxes: Tensor, scales: Sequence[Sequence[float]]) -> Tensor:
        """Number of the map for each of the boxes (K, 6), given the scales of the maps, finest first."""
        own = [-log2(prod(scale)) / 3 for scale in scales]
        side = box_volume(boxes).clamp(min=0).pow(1 / 3)
        target = torch.floor(self.canonical_level + torch.log2(side / self.canonical_scale) + 1e-6)
        found = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        for level in own[1:]:
            found += target >= round(level)
        return found

    def _scale(self, name: str, features: Tensor, image_shapes: Sequence[Sequence[int]]) -> list[float]:
        """Voxels of a map per voxel of the image, along (z, y, x)."""
        if name in self.strides:
            return [1 / stride for stride in self.strides[name]]
        largest = (max(sizes) for sizes in zip(*image_shapes, strict=True))
        return [2.0 ** round(log2(n / size)) for n, size in zip(features.shape[2:], largest, strict=True)]


def _listed(rois: Tensor | Sequence[Tensor], like: Tensor) -> Tensor:
    """Convert RoIs to (K, 7) with the batch index first."""
    if not isinstance(rois, Tensor):
        numbered = [torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(rois)]
        rois = torch.cat(numbered) if numbered else like.new_zeros(0, 7)
    if rois.ndim != 2 or rois.shape[1] != 7:
        raise InputError("rois", f"shape {tuple(rois.shape)}", "(K, 7): the batch index, then z1 y1 x1 z2 y2 x2")
    return rois


def _triple(size: int | Sequence[int]) -> tuple[int, int, int]:
    z, y, x = (size, size, size) if isinstance(size, int) else size
    return int(z), int(y), int(x)


def _scales(scale: float | Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (scale, scale, scale) if isinstance(scale, (int, float)) else scale
    return float(z), float(y), float(x)
