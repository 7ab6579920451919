"""How many bytes a step moves through memory, counted operator by operator, and how fast a device moves bytes."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from figures import seconds
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNTOUCHED = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh"}
"""Operators that neither read nor write the values of a tensor."""

ONLY_WRITE = {"copy_", "fill_", "zero_", "normal_", "uniform_", "_foreach_copy_", "_foreach_zero_"}
"""Operators that write a tensor in place without reading it."""

CASTS = {"_to_copy", "copy_"}
"""Operators that could be part of their neighbours, beside those that torch itself calls pointwise."""


class Traffic(TorchDispatchMode):
    """Counts, while it is entered, the bytes that operators read and write, forward and backward.

    Every operator reads each of its inputs once from memory and writes each output once, in the type that it has there;
    views cost nothing, and an expanded tensor counts once. That is what a program moves that runs operator by operator
    with perfect kernels. `fused` leaves out pointwise operators and casts, which a compiler can make part of what comes
    before or after; what is left are convolutions, norms, pooling, resampling, sums and the optimiser.

    Attributes:
        by_operator: Operator -> bytes.
        fused: The bytes of operators that do more than compute voxel by voxel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_operator: Counter[str] = Counter()
        self.fused = 0

    @property
    def total(self) -> int:
        """The bytes of all operators."""
        return sum(self.by_operator.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in UNTOUCHED:
            return found
        moved = _moved(func, name, args, kwargs or {}, found)
        self.by_operator[name] += moved
        if torch.Tag.pointwise not in func.tags and name not in CASTS and not name.endswith("elu_backward"):
            self.fused += moved
        return found


def _moved(func: Any, name: str, args: Any, kwargs: dict[str, Any], found: Any) -> int:
    """Return the bytes that an operator reads and writes."""
    declared = func._schema.arguments
    given = {a.name: kwargs[a.name] for a in declared if a.name in kwargs}
    given |= {a.name: value for a, value in zip(declared, args, strict=False)}
    changed = {a.name for a in declared if a.alias_info is not None and a.alias_info.is_write}
    read = {id(t): t for key, value in given.items() if not (key in changed and name in ONLY_WRITE)
            for t in _tensors(value)}  # fmt: skip
    written = {id(t): t for key in changed if key in given for t in _tensors(given[key])}
    returns = func._schema.returns
    for declared_return, value in zip(returns, found if len(returns) > 1 else (found,), strict=False):
        if declared_return.alias_info is None:
            written |= {id(t): t for t in _tensors(value)}
    return sum(map(_bytes, read.values())) + sum(map(_bytes, written.values()))


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor takes in memory; an axis of stride 0 takes those of one element."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n if step else min(n, 1) for n, step in sides) * tensor.element_size()


def counted(step: Callable[[], object]) -> Traffic:
    """Count one step."""
    with Traffic() as traffic:
        step()
    return traffic


def copy_bandwidth(device: torch.device, small: bool) -> float:
    """Return the bytes per second that the device reads and writes in a large copy from memory to memory."""
    source = torch.rand((1 << 22) if small else (1 << 29), device=device)  # 16 MiB or 2 GiB
    copy = torch.empty_like(source)
    copy.copy_(source)
    taken = statistics.median(seconds(lambda: copy.copy_(source), 3, device) for _ in range(5))
    return 2 * source.numel() * source.element_size() / taken
