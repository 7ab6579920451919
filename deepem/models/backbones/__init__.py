"""Backbones: the networks from an image to feature maps, on which models are built.

A plug-in is a file with `create_backbone`; models select it by name. The classes and functions below are imported on
first use, so that listing the folder does not import torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepem.models.backbones.hiera import Hiera, hiera_b, hiera_bp, hiera_l, hiera_s, hiera_t
    from deepem.models.backbones.parts.base import Backbone
    from deepem.models.backbones.parts.fpn import FPN, LastLevelMaxPool, WithFPN
    from deepem.models.backbones.parts.mask_units import HieraBlock
    from deepem.models.backbones.parts.pretrained import inflate
    from deepem.models.backbones.parts.pyramid import SimpleFeaturePyramid
    from deepem.models.backbones.parts.unroll import Reroll, Unroll
    from deepem.models.backbones.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet34, resnet50, resnet101
    from deepem.models.backbones.vitdet import ViTDet

__all__ = [
    "FPN",
    "Backbone",
    "BasicBlock",
    "Bottleneck",
    "Hiera",
    "HieraBlock",
    "LastLevelMaxPool",
    "Reroll",
    "ResNet",
    "SimpleFeaturePyramid",
    "Unroll",
    "ViTDet",
    "WithFPN",
    "hiera_b",
    "hiera_bp",
    "hiera_l",
    "hiera_s",
    "hiera_t",
    "inflate",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
]

_HOMES = {
    "hiera": ("Hiera", "hiera_b", "hiera_bp", "hiera_l", "hiera_s", "hiera_t"),
    "resnet": ("BasicBlock", "Bottleneck", "ResNet", "resnet18", "resnet34", "resnet50", "resnet101"),
    "vitdet": ("ViTDet",),
    "parts.base": ("Backbone",),
    "parts.fpn": ("FPN", "LastLevelMaxPool", "WithFPN"),
    "parts.mask_units": ("HieraBlock",),
    "parts.pretrained": ("inflate",),
    "parts.pyramid": ("SimpleFeaturePyramid",),
    "parts.unroll": ("Reroll", "Unroll"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


class _Package(ModuleType):
    """Module class that keeps `resnet50` of this package a function when the plug-in file `resnet50.py` is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
