"""Batches as tensors: views of the memory that a worker wrote the samples into."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from deepem.data.volume import Array
from deepem.data.worker import Part, Stream, make, view

Batch = dict[str, Tensor]


def make_batch(stream: Stream, indices: range) -> Batch:
    """Make a batch in this process."""
    memory: list[Array] = []

    def allocate(size: int) -> Array:
        memory.append(np.empty(size, np.uint8))
        return memory[-1]

    parts = make(stream, indices, allocate)
    return tensors(parts, memory[-1])


def tensors(parts: Mapping[str, Part], memory: Array) -> Batch:
    """Return the tensors of a batch whose parts lie in `memory`, without copying them."""
    return {key: _tensor(part, memory) for key, part in parts.items()}


def _tensor(part: Part, memory: Array) -> Tensor:
    return torch.from_numpy(view(memory, part)) if part.value is None else _constant(part)


@lru_cache
def _constant(part: Part) -> Tensor:
    # expand would not do: an axis of length one keeps its stride
    return torch.from_numpy(np.full(1, part.value, part.dtype)).as_strided(part.shape, (0,) * len(part.shape))


def pinned(batch: Batch) -> Batch:
    """Copy the batch into page-locked memory, except constants: torch cannot pin a tensor whose strides are 0."""
    return {key: tensor.pin_memory() if any(tensor.stride()) else tensor for key, tensor in batch.items()}
