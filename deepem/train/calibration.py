"""Batch-norm statistics taken anew, so that they belong to the weights that are used.

The running statistics of a batch norm follow the last ten steps or so. At a batch size of 1 and with weights that still
move, those are the statistics of a few patches under weights that are gone. Here they are the mean over many training
samples under one set of weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Statistics = dict[str, Tensor]
"""Running means and variances, by their names in the network's state dict."""


def applies(network: nn.Module, frozen: Collection[nn.Module] = ()) -> bool:
    """Whether a network has normalisations whose statistics can be taken."""
    return any(_keeps_statistics(module) and module not in frozen for module in network.modules())


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.running_mean is not None


@torch.no_grad()
def measured(
    network: nn.Module,
    frozen: Collection[nn.Module],
    passes: Iterable[Callable[[], object]],
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Statistics:
    """The mean of the statistics that each batch norm sees over some forward passes.

    The network is in eval mode but for its norms: each normalises by the batch, as in training, and dropout is off, as
    in use. A norm that is called several times in a pass counts every call. Buffers and modes are left as they were.

    Args:
        network: With the weights that the statistics are for.
        frozen: Normalisations that keep their statistics.
        passes: Each runs the network once.
        total: The sum over all ranks, written into a tensor; all ranks take part, and all get the same statistics.

    Returns:
        Nothing for norms that are frozen, keep no statistics, or were not called.
    """
    named = network.named_modules(remove_duplicate=False)
    norms = {n: m for n, m in named if isinstance(m, _NormBase) and _keeps_statistics(m) and m not in frozen}
    sums = {norm: _zeros(norm) for norm in norms.values()}
    calls = Counter[nn.Module]()
    with _alone_in_training(network, sums), _reading(sums, calls):
        for run in passes:
            run()
    means = {}
    for norm, summed in sums.items():
        count = total(torch.tensor([float(calls[norm])], dtype=torch.float64, device=summed.device))
        means[norm] = total(summed) / count
    found: Statistics = {}
    for name, norm in norms.items():
        for key, value in zip(("running_mean", "running_var"), means[norm], strict=True):
            if value.isfinite().all():  # 0 / 0 of a norm that was not called
                found[f"{name}.{key}" if name else key] = value.to(getattr(norm, key).dtype)
    return found


def _zeros(norm: _NormBase) -> Tensor:
    """Room for the sums of means and of variances, (2, C)."""
    assert norm.running_mean is not None
    return torch.zeros(2, norm.num_features, dtype=torch.float64, device=norm.running_mean.device)


@contextmanager
def _alone_in_training(network: nn.Module, norms: Iterable[nn.Module]) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _reading(sums: dict[_NormBase, Tensor], calls: Counter[nn.Module]) -> Iterator[None]:
    """Within, each call of a norm adds the statistics of its batch to the sums.

    With a momentum of 1, the running statistics after a call are those of its batch.
    """

    def add(norm: _NormBase, *_: object) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        sums[norm] += torch.stack([norm.running_mean, norm.running_var])
        calls[norm] += 1

    with ExitStack() as back:
        for norm in sums:
            buffers = list(norm.buffers(recurse=False))
            back.callback(_put_back, norm, norm.momentum, buffers, [buffer.clone() for buffer in buffers])
            norm.momentum = 1.0
            back.callback(norm.register_forward_hook(add).remove)
        yield


def _put_back(norm: _NormBase, momentum: float | None, buffers: list[Tensor], before: list[Tensor]) -> None:
    norm.momentum = momentum
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)
