"""Activation checkpointing that leaves batch norm statistics as they would be without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *args: Any) -> Tensor:
    """module(*args), whose inner maps are not kept for the backward pass but computed again in it."""
    if not torch.is_grad_enabled():
        return module(*args)  # type: ignore[no-any-return]
    if torch.compiler.is_compiling():  # the compiler keeps side effects out of what it computes again
        return checkpoint(module, *args, use_reentrant=False)  # type: ignore[no-any-return]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_held(module)

    return checkpoint(module, *args, use_reentrant=False, context_fn=contexts)  # type: ignore[no-any-return]


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    """Batch norms within leave their running statistics alone: the first forward pass has counted already."""
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
