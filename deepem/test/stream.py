"""Predict the boxes of a volume into a sink, while the next ones are read and the last ones are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from deepem.io.volume import Volume
from deepem.scan.augment import Augmented
from deepem.scan.memory import Cut
from deepem.scan.overlap import overlapped
from deepem.scan.stitch import Scan
from deepem.test.kinds import Written, made
from deepem.utils.geometry import Box


class Sink(Protocol):
    """Takes finished boxes."""

    def write(self, box: Box, values: Mapping[str, NDArray[Any]], last: bool) -> None:
        """Write planes of a column in ascending z; `last` marks the last planes of the column."""


class Nowhere:
    """A sink that discards all data, for benchmarks."""

    def write(self, box: Box, values: Mapping[str, NDArray[Any]], last: bool) -> None:
        """Do nothing."""


def stream(
    run: Scan | Augmented,
    cut: Cut,
    volume: Volume,
    sink: Sink,
    device: torch.device,
    outputs: Mapping[str, Written] | None = None,
) -> None:
    """Compute the boxes of a cut, convert the results to the volumes to write, and write them."""
    overlapped(run, cut.boxes, cut.depth, volume, sink.write, device, lambda values: made(values, outputs or {}))


def largest_that_fits(limit: float, network: int, batch: int, patch: tuple[int, int, int]) -> str:
    """Suggest what fits into memory: the largest batch, or else a batch of 1 with a smaller patch in y and x."""
    best = int(batch * limit * 0.5 / max(network, 1))
    if 1 <= best < batch:
        return f"--batch_size {best}"
    share = min(limit * 0.5 / max(network / batch, 1), 0.9)
    z, y, x = patch
    side = [max(16, int(n * share**0.5) // 16 * 16) for n in (y, x)]
    return f"--batch_size 1 and --inputsz of about {z},{side[0]},{side[1]}"
