"""Training a backbone: learning rates that decay towards its input, and weights converted from 2-D networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from deepem.models.backbones.parts.base import Backbone
from deepem.models.backbones.parts.pretrained import inflate
from deepem.utils.errors import InputError


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """Return decay ** (number of layers above) for each parameter name: 1 for the heads, smallest for the first layer.

    A network with a `layer_of` method defines its own layers. Otherwise the layers are those of its `backbone`, and all
    other parameters form one more layer. Source: Clark et al. 2020, arXiv:2003.10555.

    Raises:
        InputError: the network has no such layers.
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
    """Return the weights of another network that fit this one, under this network's names.

    Weights of a 2-D backbone are inflated to 3-D and position embeddings are interpolated, see
    `deepem.models.backbones.inflate`. If the weights are those of a backbone alone, they are matched to the network's
    backbone.
    """
    parts: list[tuple[str, nn.Module]] = [("", network)]
    parts += [(f"{name}.", part) for name, part in network.named_modules() if name and isinstance(part, Backbone)]
    found = [{f"{prefix}{name}": value for name, value in inflate(weights, part).items()} for prefix, part in parts]
    return max(found, key=len)
