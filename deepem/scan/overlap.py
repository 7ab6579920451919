"""Overlap reading, computing and writing: read one step ahead of the network and write one step behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from numpy.typing import NDArray

from deepem.io.volume import Volume
from deepem.scan.augment import Augmented
from deepem.scan.stitch import Finished, Scan
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

Write = Callable[[Box, Mapping[str, NDArray[Any]], bool], None]
"""Takes the finished planes of a box; the flag marks the last planes of the box."""

Convert = Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]


def overlapped(
    run: Scan | Augmented,
    boxes: Sequence[Box],
    depth: int | None,
    volume: Volume,
    write: Write,
    device: torch.device,
    convert: Convert = lambda values: values,
) -> None:
    """Compute boxes of a volume, convert the results on the device, copy them to the host, and write them.

    Args:
        run: The scan.
        boxes: The boxes, one after the other.
        depth: The last argument of `run`.
        volume: The input; a thread reads it.
        write: Writes the results; another thread calls it, in order.
        device: The device of the scan.
        convert: Converts the values of a scan.

    Raises:
        InputError: a result has a NaN.
    """
    transfer = Transfer(device)

    def arrive(finished: Finished, broken: Mapping[str, torch.Tensor], computed: Any, last: bool) -> None:
        box, values = finished
        _require_numbers(box, transfer.to_host(broken, computed))
        write(box, transfer.to_host(values, computed), last)

    with ThreadPoolExecutor(1, "write") as pool:
        behind: Future[None] | None = None
        for box in boxes:
            for finished in run.run(lambda b: transfer.to_device(tensor(volume, b)), box, depth):
                if behind is not None:
                    behind.result()
                part, values = finished
                broken = {name: value.sum().isnan() for name, value in values.items()}
                whole = part, dict(convert(values))
                behind = pool.submit(arrive, whole, broken, transfer.mark(), part.end[0] == box.end[0])
                del finished, values, whole
        if behind is not None:
            behind.result()


def _require_numbers(box: Box, broken: Mapping[str, NDArray[Any]]) -> None:
    """Refuse results of a scan with a NaN, which logits that are not finite leave there.

    Args:
        box: Where the results are.
        broken: For each output, whether it has a NaN.

    Raises:
        InputError: an output has a NaN.
    """
    for name, value in broken.items():
        if value:
            got = f"values that are no numbers within {box.begin} to {box.end}"
            raise InputError(f"model output {name}", got, "finite logits: smaller weights, or float32")


def tensor(volume: Volume, box: Box, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return a box of a volume as a tensor on a device."""
    array = volume.read(box)
    if not array.flags.writeable or min(array.strides) < 0:  # from_numpy refuses negative strides
        array = array.copy()
    return torch.from_numpy(array).to(device)


class Transfer:
    """Copies to and from a GPU while the network computes, on separate streams and through pinned memory.

    Create it in the thread that computes; that thread's stream is the one to overlap with.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.up, self.stream = (torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2))
        self.computing = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def to_device(self, value: torch.Tensor) -> torch.Tensor:
        """Copy a host tensor to the device and wait for the copy; called by the reading thread."""
        if self.up is None:
            return value
        with torch.cuda.stream(self.up):
            there = value.pin_memory().to(self.device, non_blocking=True)
        assert self.computing is not None
        there.record_stream(self.computing)
        self.up.synchronize()
        return there

    def mark(self) -> torch.cuda.Event | None:
        """Record an event after all work queued so far; called by the computing thread."""
        if self.stream is None:
            return None
        event = torch.cuda.Event()
        event.record(self.computing)
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
