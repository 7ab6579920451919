"""Overlap reading, computing and writing: read one step ahead of the network and write one step behind it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from deepem.io.volume import Volume
from deepem.scan.augment import Augmented
from deepem.scan.inference import tensor
from deepem.scan.memory import Cut
from deepem.scan.stitch import Finished, Scan, require_numbers
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
    transfer = Transfer(device)

    def write(finished: Finished, arrived: Any, last: bool) -> None:
        box, values = finished
        sink.write(box, transfer.to_host(values, arrived), last)

    with ThreadPoolExecutor(1, "write") as pool:
        behind: Future[None] | None = None
        for box in cut.boxes:
            for finished in run.run(lambda b: transfer.to_device(tensor(volume, b)), box, cut.depth):
                if behind is not None:
                    behind.result()
                part, values = finished
                require_numbers(part, values)
                whole = part, made(values, outputs or {})
                behind = pool.submit(write, whole, transfer.mark(), part.end[0] == box.end[0])
                del finished, values, whole
        if behind is not None:
            behind.result()


class Transfer:
    """Copies to and from a GPU while the network computes, on separate streams and through pinned memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.up, self.stream = (torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2))

    def to_device(self, value: torch.Tensor) -> torch.Tensor:
        """Copy a host tensor to the device and wait for the copy; called by the reading thread."""
        if self.up is None:
            return value
        with torch.cuda.stream(self.up):
            there = value.pin_memory().to(self.device, non_blocking=True)
        there.record_stream(torch.cuda.default_stream(self.device))
        self.up.synchronize()
        return there

    def mark(self) -> torch.cuda.Event | None:
        """Record an event after all work queued so far; called by the computing thread."""
        if self.stream is None:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.stream.device))
        return event

    def to_host(self, values: Mapping[str, torch.Tensor], arrived: Any) -> dict[str, NDArray[Any]]:
        """Copy tensors to host arrays; waits for the copies, but not for later work on the device."""
        if self.stream is None:
            return {name: value.numpy() for name, value in values.items()}
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(arrived)
            host = {}
            for name, value in values.items():
                host[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
                host[name].copy_(value, non_blocking=True)
                value.record_stream(self.stream)
        self.stream.synchronize()
        return {name: value.numpy() for name, value in host.items()}


def largest_that_fits(limit: float, network: int, batch: int, patch: tuple[int, int, int]) -> str:
    """Suggest what fits into memory: the largest batch, or else a batch of 1 with a smaller patch in y and x."""
    best = int(batch * limit * 0.5 / max(network, 1))
    if 1 <= best < batch:
        return f"--batch_size {best}"
    share = min(limit * 0.5 / max(network / batch, 1), 0.9)
    z, y, x = patch
    side = [max(16, int(n * share**0.5) // 16 * 16) for n in (y, x)]
    return f"--batch_size 1 and --inputsz of about {z},{side[0]},{side[1]}"
