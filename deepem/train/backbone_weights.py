"""What training does with a backbone apart: learning rates that fall towards its input, weights of 2-D networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from deepem.models.backbones.parts.base import Backbone
from deepem.models.backbones.parts.pretrained import inflate
from deepem.utils.errors import InputError


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """By name of a parameter, decay ** (layers above its own): 1 for the heads, least for the first layer.

    The layers are those that a network tells apart by `layer_of`; where it does not, those of its `backbone`, and one
    for all else. Source: Clark et al. 2020, arXiv:2003.10555.

    Raises:
        InputError: a network without such layers.
    """
    names = [name for name, _ in network.named_parameters()]
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    own: Any = network
    backbone: Any = getattr(network, "backbone", None)
    if hasattr(own, "layer_of"):
        layers, count = {name: own.layer_of(name) for name in names}, own.num_layers
    elif hasattr(backbone, "layer_of"):
        inside = {name: name.removeprefix("backbone.") for name in names if name.startswith("backbone.")}
        count = backbone.num_layers + 1
        layers = {name: backbone.layer_of(inside[name]) if name in inside else count - 1 for name in names}
    else:
        raise InputError("--layer_decay", f"{decay:g} for a network without layers", "a model on a --backbone, or 1")
    return {name: decay ** (count - 1 - layer) for name, layer in layers.items()}


def fitted(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights of another network that fit, by the network's own names.

    Weights of a 2-D backbone are made 3-D, and positions interpolated, see `deepem.models.backbones.inflate`. They may
    be a backbone's alone: it is looked for in the network.
    """
    parts: list[tuple[str, nn.Module]] = [("", network)]
    parts += [(f"{name}.", part) for name, part in network.named_modules() if name and isinstance(part, Backbone)]
    found = [{f"{prefix}{name}": value for name, value in inflate(weights, part).items()} for prefix, part in parts]
    return max(found, key=len)
