"""The simple feature pyramid of ViTDet (Li et al. 2022, arXiv:2203.16527): several resolutions from one map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from deepem.models.backbones.parts.base import Backbone, ChannelNorm, Maps
from deepem.models.emvision.utils import div3, mul3
from deepem.utils.geometry import Vec3, vec3


class ConvNorm(nn.Conv3d):
    """A convolution without bias, followed by a norm as its child module."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = ChannelNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, z, y, x) -> the same size."""
        out: Tensor = self.norm(super().forward(x))
        return out


class SimpleFeaturePyramid(Backbone):
    """Build maps p2, p3, ... from the last map of a plain backbone.

    An axis along which patches are one voxel long keeps its resolution in all maps. No axis becomes finer than the
    image.

    Args:
        net: Backbone that returns one map, such as `ViTDet`.
        out_channels: Channels of every map.
        scale_factors: Resolution of each map relative to the last one: 4, 2, 1 or 0.5, finest first.
    """

    is_pyramid = True

    def __init__(
        self, net: Backbone, out_channels: int = 256, scale_factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5)
    ) -> None:
        super().__init__()
        self.net = net
        (channels,), (stride,) = net.out_channels.values(), net.strides.values()
        self.out_channels, self.strides = {}, {}
        for i, scale in enumerate(scale_factors, 2):
            layers, width, reached = _rescale(channels, stride, scale)
            layers += [ConvNorm(width, out_channels, 1), ConvNorm(out_channels, out_channels, 3)]
            self.add_module(f"simfp_{i}", nn.Sequential(*layers))
            self.out_channels[f"p{i}"], self.strides[f"p{i}"] = out_channels, reached
        self.multiple = vec3(max(s[a] for s in (stride, *self.strides.values())) for a in range(3))
        self.num_layers = net.num_layers + 1

    def forward(self, x: Tensor) -> Maps:
        """(N, C, Z, Y, X) -> maps, finest first."""
        self.check_size(tuple(x.shape[-3:]))
        last = self.net(x)
        return OrderedDict((name, self.get_submodule(f"simfp_{name[1:]}")(last)) for name in self.out_channels)

    def layer_of(self, name: str) -> int:
        """The layers of the plain backbone, then one for the pyramid."""
        return self.net.layer_of(name.removeprefix("net.")) if name.startswith("net.") else self.num_layers - 1


def _rescale(channels: int, stride: Vec3, scale: float) -> tuple[list[nn.Module], int, Vec3]:
    """Layers that change the resolution by a scale, their output channels, and the resulting stride."""
    if scale not in (4, 2, 1, 0.5):
        raise ValueError(f"scale factor: got {scale}, wants 4, 2, 1 or 0.5")
    layers: list[nn.Module] = []
    if scale == 0.5:
        pool = vec3(1 if s == 1 else 2 for s in stride)
        return [nn.MaxPool3d(pool, pool)], channels, mul3(stride, pool)
    for step in range(int(scale) // 2):
        factor = vec3(2 if s % 2 == 0 else 1 for s in stride)
        layers += [ChannelNorm(channels), nn.GELU()] if step else []
        layers.append(nn.ConvTranspose3d(channels, channels // 2, factor, factor))
        channels, stride = channels // 2, div3(stride, factor)
    return layers, channels, stride
