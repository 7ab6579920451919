"""Tensors of a batch that are views of the memory it was made in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from deepem.data.volume import Array
from deepem.data.worker import Part, view

Batch = dict[str, Tensor]


def tensors_of(parts: Mapping[str, Part], memory: Array) -> Batch:
    """Return the tensors (N, C, Z, Y, X) of a batch."""
    return {key: _tensor(part, memory) for key, part in parts.items()}


def _tensor(part: Part, memory: Array) -> Tensor:
    return torch.from_numpy(view(memory, part)) if part.value is None else _constant(part)


@lru_cache
def _constant(part: Part) -> Tensor:
    # expand would not do: an axis of length one keeps its stride
    return torch.from_numpy(np.full(1, part.value, part.dtype)).as_strided(part.shape, (0,) * len(part.shape))
