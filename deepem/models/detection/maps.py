"""What a detector needs to know about the feature maps of its backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm, prod
from typing import Any

from torch import nn

from deepem.models.detection.roi_align import MultiScaleRoIAlign
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

SIDE = 8
"""Side of the default anchors of a feature map, in voxels of the map."""


def channels_of(backbone: nn.Module) -> int:
    """Number of channels of a backbone's feature maps, which is the same for all."""
    given: Any = getattr(backbone, "out_channels", None)
    channels = set(given.values()) if isinstance(given, Mapping) else {given}
    if len(channels) != 1 or not all(isinstance(n, int) for n in channels):
        raise InputError("backbone", f"out_channels {given}", "one number for all of its maps: put an FPN on it")
    return int(channels.pop())


def strides_of(backbone: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Name -> (z, y, x) stride of a backbone's feature maps; empty if the backbone has no `strides`."""
    return {name: vec3(stride) for name, stride in (getattr(backbone, "strides", None) or {}).items()}


def multiple_of(backbone: nn.Module, strides: Mapping[str, Sequence[int]]) -> list[int]:
    """Divisor of a batch's padded sides: the backbone's `multiple`, or its strides except ``pool``."""
    own: Any = getattr(backbone, "multiple", None)
    every = [own] if own else [stride for name, stride in strides.items() if name != "pool"] or [(32, 32, 32)]
    return [lcm(*(int(one[axis]) for one in every)) for axis in range(3)]


def default_sizes(strides: Mapping[str, Sequence[int]]) -> list[list[float]]:
    """One anchor size per map, 8 times the cube root of its strides' product; five sizes if the strides are unknown."""
    if not strides:
        return [[32, 64, 128, 256, 512]]
    return [[float(round(SIDE * prod(stride) ** (1 / 3)))] for stride in strides.values()]


def roi_pool(strides: Mapping[str, Sequence[int]], bins: int) -> MultiScaleRoIAlign:
    """RoIAlign on the maps of a backbone except ``pool``, which serves proposals only."""
    names = [name for name in strides if name != "pool"] or ["0", "1", "2", "3"]
    return MultiScaleRoIAlign(names, bins, 2, strides=strides)
