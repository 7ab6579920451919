"""Activation checkpointing that leaves batch norm statistics as they would be without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *args: Any) -> Tensor:
    """Return module(*args), recomputing its activations in the backward pass instead of storing them."""
    if not torch.is_grad_enabled():
        return module(*args)  # type: ignore[no-any-return]
    if torch.compiler.is_compiling():  # the compiler preserves side effects when it recomputes
        return checkpoint(module, *args, use_reentrant=False)  # type: ignore[no-any-return]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_held(module)

    return checkpoint(module, *args, use_reentrant=False, context_fn=contexts)  # type: ignore[no-any-return]


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    """Batch norms in this context do not update their running statistics, since the first forward pass already did."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m.momentum, None if m.num_batches_tracked is None else m.num_batches_tracked.clone()) for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, (momentum, count) in zip(norms, before, strict=True):
            m.momentum = momentum
            if count is not None and m.num_batches_tracked is not None:
                m.num_batches_tracked.copy_(count)
