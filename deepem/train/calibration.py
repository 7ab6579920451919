"""Recomputes batch-norm statistics for the weights that are evaluated and stored.

The running statistics of a batch norm cover only the last ten steps or so. At a batch size of 1 they describe a few
patches, seen by weights that have changed since. Here they are the mean over many training samples, all seen by the
same weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Statistics = dict[str, Tensor]
"""Running means and variances, keyed by their names in the network's state dict."""


def applies(network: nn.Module, frozen: Collection[nn.Module] = ()) -> bool:
    """Whether a network has a norm layer that keeps running statistics and is not frozen."""
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
    """Return the batch-norm statistics averaged over several forward passes.

    Dropout is off, as in inference, but every batch norm normalises by the batch, as in training. A norm that is called
    several times in a pass counts every call. Buffers and train or eval modes are restored afterwards.

    Args:
        network: The network, with the weights to compute the statistics for.
        frozen: Norm layers that keep their statistics.
        passes: Functions that each run the network once.
        total: Sums a tensor over all ranks, in place. All ranks must take part, and all get the same statistics.

    Returns:
        The new statistics. Norms that are frozen, keep no statistics or were never called are left out.
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
            if value.isfinite().all():  # a norm that was never called gives 0 / 0
                found[f"{name}.{key}" if name else key] = value.to(getattr(norm, key).dtype)
    return found


def _zeros(norm: _NormBase) -> Tensor:
    """Allocate the sums of means and variances, (2, C)."""
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
    """Within this context, each call of a norm adds the statistics of its batch to the sums.

    With a momentum of 1, the running statistics after a call are exactly those of its batch.
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
