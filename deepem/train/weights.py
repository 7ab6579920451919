"""Selects which weights to train, sets their learning rates, loads pretrained weights, and averages weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepem.models.backbones.parts.pretrained import rename
from deepem.protocols import RenamesWeights
from deepem.train.backbone_weights import fitted, layer_scales
from deepem.utils import checkpoint
from deepem.utils.errors import InputError, warn


def matching(network: nn.Module, flag: str, pattern: str) -> list[str]:
    """Return the parameter names that match a pattern: `core.enc` matches all below it, `*.bias` uses wildcards.

    Raises:
        InputError: nothing matches; the error lists the parts of the network.
    """
    names = [name for name, _ in network.named_parameters()]
    found = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('.')}.")]
    if not found:
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
        raise InputError(flag, f"{pattern}, no parameter of the network", f"names such as {', '.join([*parts][:8])}")
    return found


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Freeze parameters. Returns the fully frozen norm layers, which must stay in eval mode."""
    frozen = {name for pattern in patterns for name in matching(network, "--freeze", pattern)}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError("--freeze", " ".join(patterns), "something left to train")
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    return [norm for norm in norms if frozen and not any(p.requires_grad for p in norm.parameters())]


def groups(
    network: nn.Module, scales: Sequence[tuple[str, float]], weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Return the parameters to train as optimiser groups; `scale` is the factor on the learning rate of each group.

    Args:
        network: The network. Its frozen parameters are left out.
        scales: Pairs (pattern, factor). If several patterns match a parameter, the last one applies.
        weight_decay: The weight decay of kernels. Parameters with one axis (biases, factors of norms) never decay.
        layer_decay: The learning rate is multiplied by this from each layer to the one below it, on top of `scales`.
    """
    scale, of_layer = dict.fromkeys((n for n, _ in network.named_parameters()), 1.0), layer_scales(network, layer_decay)
    for pattern, factor in scales:
        scale |= dict.fromkeys(matching(network, "--lr_scale", pattern), factor)
    scale = {name: factor * of_layer[name] for name, factor in scale.items()}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    parameters = dict(network.named_parameters())
    found = _grouped(network, trained, scale, weight_decay)
    made: list[dict[str, Any]] = [
        {"params": [parameters[name] for name in names], "scale": s} for (s, _), names in found.items()
    ]
    if weight_decay:
        for group, (_, decay) in zip(made, found, strict=True):
            group["weight_decay"] = decay
    return made


PREFIXES = ("module.", "_orig_mod.", "model.", "network.")
"""Prefixes that wrappers add to parameter names: DataParallel, torch.compile, and other programs."""


def unprefixed(weights: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Strip a wrapper's prefix from the names if they then match the network's names better."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in weights)), None):
        bare = {name.removeprefix(prefix): value for name, value in weights.items()}
        if len(bare.keys() & own.keys()) <= len(weights.keys() & own.keys()) and not _wrapped(bare):
            break
        weights = bare
    return weights


def _wrapped(weights: Mapping[str, Any]) -> bool:
    return any(all(name.startswith(p) for name in weights) for p in PREFIXES)


def _grouped(
    network: nn.Module, trained: Collection[str], scale: Mapping[str, float], weight_decay: float
) -> dict[tuple[float, float], list[str]]:
    """Return (learning-rate factor, weight decay) -> names of the parameters in this group."""
    found: dict[tuple[float, float], list[str]] = {}
    for name, parameter in network.named_parameters():
        if name in trained:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            found.setdefault((scale[name], decay), []).append(name)
    return found


def names_of_groups(
    network: nn.Module,
    frozen: Sequence[str],
    scales: Sequence[tuple[str, float]],
    weight_decay: float,
    layer_decay: float = 1.0,
) -> list[list[str]]:
    """Return the parameter names in each optimiser group of a run with these options."""
    scale = dict.fromkeys((name for name, _ in network.named_parameters()), 1.0)
    kept = {name for pattern in frozen for name in matching(network, "--freeze", pattern)}
    for pattern, factor in scales:
        scale |= dict.fromkeys(matching(network, "--lr_scale", pattern), factor)
    of_layer = layer_scales(network, layer_decay)
    scale = {name: factor * of_layer[name] for name, factor in scale.items()}
    return [*_grouped(network, scale.keys() - kept, scale, weight_decay).values()]


def pretrain(network: nn.Module, path: str) -> str:
    """Load the matching part of a checkpoint's evaluation weights; return a report of what matched and what did not.

    Raises:
        InputError: the file cannot be read, or nothing in it matches.
    """
    state = checkpoint.read(Path(path))
    given = checkpoint.weights_of(state, f"--pretrain {path}")
    if isinstance(network, RenamesWeights):
        given = network.renamed(given)
    own = network.state_dict()
    given = unprefixed(given, own)
    weights = {**given, **fitted(network, given)}
    left = checkpoint.load_weights(network, weights, f"--pretrain {path}", matching=True)
    lines = [f"--pretrain {path}: {len(own) - len(left)} of {len(own)} entries taken"]
    for what, names in (
        ("not in it", [name for name in left if name not in weights]),
        ("of another shape", [name for name in left if name in weights]),
        ("in it, but not in the network", _unused(network, given)),
    ):
        lines += [f"  {what}: {', '.join(names)}"] if names else []
    if 2 * (len(own) - len(left)) < len(own):
        warn(f"--pretrain {path}: only {len(own) - len(left)} of {len(own)} entries taken, less than half")
    return "\n".join(lines)


def _unused(network: nn.Module, given: Mapping[str, Tensor]) -> list[str]:
    """Return the names of weights that match nothing in the network or in any part of it."""
    own = network.state_dict()
    return [name for name in given if not any(key == name or key.endswith(f".{rename(name)}") for key in own)]


class Average:
    """Exponential moving average of a network's state, including batch-norm statistics.

    After every step, average = d * average + (1 - d) * state, with d = min(decay, (1 + n) / (10 + n)) in iteration n.
    The smaller d of early iterations quickly removes the initial weights from the average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.state = {name: value.detach().clone() for name, value in _tensors(network).items()}
        self._places = _places(network)
        self._real = [name for name, value in self.state.items() if value.is_floating_point()]
        self._whole = [name for name, value in self.state.items() if not value.is_floating_point()]

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Update the average after an iteration."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        now = {name: tensors[key] for name, (tensors, key) in self._places.items()} or self.network.state_dict()
        torch._foreach_lerp_([self.state[n] for n in self._real], [now[n] for n in self._real], 1 - decay)
        if self._whole:
            torch._foreach_copy_([self.state[n] for n in self._whole], [now[n] for n in self._whole])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the average from a checkpoint."""
        for name, value in self.state.items():
            value.copy_(state[name])


@contextmanager
def applied(network: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Within this context, the network has these entries of its state dict; all other entries stay as they are."""
    own = {name: value.clone() for name, value in _tensors(network).items() if name in state}
    network.load_state_dict(state, strict=False)
    try:
        yield
    finally:
        network.load_state_dict(own, strict=False)


def _places(network: nn.Module) -> dict[str, tuple[Mapping[str, Any], str]]:
    """Return where a network keeps each tensor of its state dict: a module's dict, and the key in it.

    Reading these places gives the current tensors, also where a module replaces a buffer. Collecting a state dict
    takes over a millisecond, in every step and while a GPU has nothing to do.

    Returns nothing if a module changes its state dict by hooks.
    """
    found: dict[str, tuple[Mapping[str, Any], str]] = {}
    for prefix, module in network.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):
            found |= {f"{prefix}.{key}" if prefix else key: (tensors, key) for key in tensors}
    state = network.state_dict(keep_vars=True)
    same = all(name in found and found[name][0][found[name][1]] is state[name] for name in _tensors(network))
    return {name: found[name] for name in _tensors(network)} if same else {}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's state dict without the extra state of other types that modules may add."""
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def groups_before(network: nn.Module, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[list[str]] | None:
    """Return the parameter names of the checkpoint's optimiser groups, if --freeze or --lr_scale have changed since."""
    if all(before.get(name) == now.get(name) for name in ("freeze", "lr_scale")):
        return None
    scales = [(name, factor) for name, factor in before.get("lr_scale") or ()]
    decays = before.get("weight_decay", 0.0), before.get("layer_decay", 1.0)
    return names_of_groups(network, before.get("freeze") or (), scales, *decays)
