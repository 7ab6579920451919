"""Voxel-wise heads on the feature maps of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.layers import OutputBlock, Spec
from deepem.utils.crop import centre_crop
from deepem.utils.geometry import vec3


class DenseHeads(nn.Module):
    """One convolution per head on the finest feature map, interpolated to the voxels of the image.

    Args:
        in_channels: Channels of the map.
        out_spec: The heads; each is cropped at the centre to its size.
    """

    def __init__(self, in_channels: int, out_spec: Spec) -> None:
        super().__init__()
        self.heads = OutputBlock(in_channels, out_spec, (3, 3, 3))
        self.sizes = {name: vec3(shape[-3:]) for name, shape in out_spec.items()}

    def forward(
        self, features: Mapping[str, Tensor], padded: Sequence[int], covered: Sequence[int], size: Sequence[int]
    ) -> dict[str, Tensor]:
        """{head: logits (N, C, Z, Y, X)}.

        Args:
            features: Finest first.
            padded: Size (z, y, x) that the maps cover.
            covered: Size (z, y, x) of the image within it, from the origin.
            size: Size (z, y, x) of the image before resizing.
        """
        finest = next(iter(features.values()))
        z, y, x = covered
        found = {}
        for name, logits in self.heads(finest).items():
            whole = _at(logits, padded)[:, :, :z, :y, :x]
            whole = _at(whole, size)
            kept = vec3(min(pair) for pair in zip(self.sizes[name], size, strict=True))
            found[name] = centre_crop(whole, kept)
        return found


def _at(logits: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="trilinear", align_corners=False)
