"""Which weights are trained, how fast, from where, and their moving average."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepem.protocols import RenamesWeights
from deepem.utils import checkpoint
from deepem.utils.errors import InputError, warn


def matching(network: nn.Module, flag: str, pattern: str) -> list[str]:
    """Names of the parameters that a pattern means: `core.enc` all below it, `*.bias` with wildcards.

    Raises:
        InputError: there are none; the network's parts are listed.
    """
    names = [name for name, _ in network.named_parameters()]
    found = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('.')}.")]
    if not found:
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
        raise InputError(flag, f"{pattern}, no parameter of the network", f"names such as {', '.join([*parts][:8])}")
    return found


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Keep parameters as they are. Gives the normalisations all of whose parameters are frozen: eval mode is theirs."""
    frozen = {name for pattern in patterns for name in matching(network, "--freeze", pattern)}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError("--freeze", " ".join(patterns), "something left to train")
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    return [norm for norm in norms if frozen and not any(p.requires_grad for p in norm.parameters())]


def groups(network: nn.Module, scales: Sequence[tuple[str, float]], weight_decay: float) -> list[dict[str, Any]]:
    """The parameters to train as groups of an optimiser, `scale` the factor on the learning rate of each.

    Args:
        network: Its frozen parameters are left out.
        scales: (pattern, factor); the last one that means a parameter holds.
        weight_decay: Of kernels; biases and the factors of normalisations, which have one axis, never decay.
    """
    scale = dict.fromkeys((name for name, _ in network.named_parameters()), 1.0)
    for pattern, factor in scales:
        scale |= dict.fromkeys(matching(network, "--lr_scale", pattern), factor)
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
"""What wrappers put in front of the names of entries: DataParallel, torch.compile, and other programs."""


def unprefixed(weights: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights without a wrapper's prefix, where they then fit the network's names better."""
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
    """The names of the parameters of each group, by its factor on the learning rate and its weight decay."""
    found: dict[tuple[float, float], list[str]] = {}
    for name, parameter in network.named_parameters():
        if name in trained:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            found.setdefault((scale[name], decay), []).append(name)
    return found


def names_of_groups(
    network: nn.Module, frozen: Sequence[str], scales: Sequence[tuple[str, float]], weight_decay: float
) -> list[list[str]]:
    """The names of the parameters in each group of an optimiser, as a run with these options had them."""
    scale = dict.fromkeys((name for name, _ in network.named_parameters()), 1.0)
    kept = {name for pattern in frozen for name in matching(network, "--freeze", pattern)}
    for pattern, factor in scales:
        scale |= dict.fromkeys(matching(network, "--lr_scale", pattern), factor)
    return [*_grouped(network, scale.keys() - kept, scale, weight_decay).values()]


def pretrain(network: nn.Module, path: str) -> str:
    """Load what matches of the weights that a checkpoint is used with; a report of what did and what did not.

    Raises:
        InputError: the file cannot be read, or nothing in it matches.
    """
    state = checkpoint.read(Path(path))
    weights: Mapping[str, Any] = state.get("ema") or state["state_dict"]
    if isinstance(network, RenamesWeights):
        weights = network.renamed(weights)
    own = network.state_dict()
    weights = unprefixed(weights, own)
    left = checkpoint.load_weights(network, weights, f"--pretrain {path}", matching=True)
    lines = [f"--pretrain {path}: {len(own) - len(left)} of {len(own)} entries taken"]
    for what, names in (
        ("not in it", [name for name in left if name not in weights]),
        ("of another shape", [name for name in left if name in weights]),
        ("in it, but not in the network", [name for name in weights if name not in own]),
    ):
        lines += [f"  {what}: {', '.join(names)}"] if names else []
    if 2 * (len(own) - len(left)) < len(own):
        warn(f"--pretrain {path}: only {len(own) - len(left)} of {len(own)} entries taken, less than half")
    return "\n".join(lines)


class Average:
    """The exponential moving average of a network's state, statistics of batch norms included.

    average = d * average + (1 - d) * state after every step, with d = min(decay, (1 + n) / (10 + n)) in iteration n,
    so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.state = {name: value.detach().clone() for name, value in _tensors(network).items()}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take in the state after an iteration."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        now = self.network.state_dict()
        real = [name for name, value in self.state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[n] for n in real], [now[n] for n in real], 1 - decay)
        for name in self.state.keys() - set(real):
            self.state[name].copy_(now[name])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the state of a checkpoint."""
        for name, value in self.state.items():
            value.copy_(state[name])


@contextmanager
def applied(network: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """The network has these entries of its state dict within; those that are not named stay."""
    own = {name: value.clone() for name, value in _tensors(network).items() if name in state}
    network.load_state_dict(state, strict=False)
    try:
        yield
    finally:
        network.load_state_dict(own, strict=False)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """A network's state dict, without the extra state that modules may add in other types."""
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
