"""Peak memory of a computation in bytes, counted from tensor shapes; it works on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextmanager
def live_bytes() -> Iterator[list[int]]:
    """Measure the largest number of bytes held at one time by tensors that are created in the context."""
    peak = [0]
    with _Live(peak):
        yield peak


class _Live(TorchDispatchMode):
    """Count the storages created by operations for as long as they are referenced."""

    def __init__(self, peak: list[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = peak
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, inputs: Any = (), kwargs: Any = None) -> Any:
        result = func(*inputs, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((inputs, kwargs)) if isinstance(t, Tensor)}
        self.held = {key: held for key, held in self.held.items() if not held[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak[0] = max(self.peak[0], sum(size for _, size in self.held.values()))
        return result
