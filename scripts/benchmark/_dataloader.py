"""torch's DataLoader, for comparison with the loader of this project."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


class Samples:
    """The same samples as a torch Dataset: sample i of (seed 0, train)."""

    def __init__(self, sampler: Any, count: int) -> None:
        self.sampler, self.count = sampler, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        from deepem.data.worker import generator

        return {key: np.ascontiguousarray(value) for key, value in self.sampler(generator(0, "train", index)).items()}


def dataloader_rate(sampler: Any, workers: int, count: int) -> float:
    """Batches/s of torch's DataLoader with the same sampler, workers and batch size, once its workers are warm."""
    from torch.utils.data import DataLoader

    warm = 8 * workers
    stream = iter(DataLoader(Samples(sampler, 2 * warm + count), batch_size=1, num_workers=workers))  # type: ignore[arg-type]
    for _ in range(warm):
        next(stream)
    start = time.perf_counter()
    for _ in range(count):
        next(stream)
    return count / (time.perf_counter() - start)
