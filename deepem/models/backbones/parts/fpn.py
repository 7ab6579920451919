"""Feature pyramid network (Lin et al. 2016, arXiv:1612.03144), which passes coarse information to the fine maps.

::

    p5 - 1x1x1 ----------------- 3x3x3 - p5 [- max-pool - pool]
                  | nearest
    p4 - 1x1x1 - (+) ----------- 3x3x3 - p4
                  | nearest
    p3 - 1x1x1 - (+) ----------- 3x3x3 - p3
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.backbones.parts.base import Backbone, Maps, named
from deepem.models.emvision.utils import mul3


class LastLevelMaxPool(nn.Module):
    """Add one more map, `pool`: every second voxel of the coarsest map."""

    def forward(self, maps: Maps) -> Maps:
        """Return the maps with `pool` appended."""
        coarsest = next(reversed(maps.values()))
        return OrderedDict([*maps.items(), ("pool", F.max_pool3d(coarsest, 1, 2))])


class FPN(nn.Module):
    """Pyramid whose maps all have the same number of channels. Parameters have torchvision's names.

    Args:
        in_channels_list: Channels of each map, finest first.
        out_channels: Channels of every output map.
        extra_blocks: Module that adds coarser maps, `LastLevelMaxPool()` or None.
    """

    def __init__(
        self, in_channels_list: Sequence[int], out_channels: int, extra_blocks: LastLevelMaxPool | None = None
    ) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv3d(c, out_channels, 1)) for c in in_channels_list)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv3d(out_channels, out_channels, 3, padding=1)) for _ in in_channels_list
        )
        self.extra_blocks = extra_blocks
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_uniform_(m.weight, a=1)
                assert m.bias is not None
                nn.init.zeros_(m.bias)

    def forward(self, maps: Mapping[str, Tensor]) -> Maps:
        """Maps (N, C, z, y, x), finest first -> the same names and sizes, with `out_channels` channels."""
        given = list(maps.items())
        merged: Maps = OrderedDict()
        above: Tensor | None = None
        for (name, x), inner, layer in reversed(list(zip(given, self.inner_blocks, self.layer_blocks, strict=True))):
            lateral: Tensor = inner(x)
            above = lateral if above is None else lateral + F.interpolate(above, size=lateral.shape[-3:])
            merged[name] = layer(above)
        pyramid: Maps = OrderedDict(reversed(merged.items()))
        return pyramid if self.extra_blocks is None else self.extra_blocks(pyramid)


class WithFPN(Backbone):
    """A backbone followed by an FPN.

    Args:
        body: Backbone that returns a tensor or an OrderedDict, and has `out_channels` and `strides`.
        out_channels: Channels of every map.
        extra_blocks: As in `FPN`.
    """

    is_pyramid = True

    def __init__(self, body: Any, out_channels: int = 256, extra_blocks: LastLevelMaxPool | None = None) -> None:
        super().__init__()
        self.body = body
        self.fpn = FPN(list(body.out_channels.values()), out_channels, extra_blocks)
        self.strides = dict(body.strides)
        coarsest = list(self.strides.values())[-1]
        self.multiple = getattr(body, "multiple", coarsest)
        if extra_blocks is not None:
            self.strides["pool"] = mul3(coarsest, 2)
        self.out_channels = dict.fromkeys(self.strides, out_channels)
        self.num_layers = getattr(body, "num_layers", 1) + 1

    def forward(self, x: Tensor) -> Maps:
        """(N, C, Z, Y, X) -> maps."""
        maps: Maps = self.fpn(named(self.body(x), self.body.out_channels))
        return maps

    def layer_of(self, name: str) -> int:
        """The layers of the backbone, then one for the FPN."""
        if name.startswith("body."):
            return self.body.layer_of(name.removeprefix("body.")) if hasattr(self.body, "layer_of") else 0
        return self.num_layers - 1
