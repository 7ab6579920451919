"""Copies batches to the device, ahead of time on a GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class DeviceBatches(Iterator[Batch]):
    """Batches on the device. After `fetch`, the next batch is copied while the GPU computes.

    Images and classes are copied as bytes. On the device they become float32, and images are scaled to [0, 1].

    Args:
        batches: The batches from the loader.
        device: The device to copy to.
        images: The keys of the images (grey values) in a batch.

    Attributes:
        waited: Seconds that the device was idle while it waited for the last batch.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device, images: Collection[str] = ("input",)) -> None:
        self._source, self.device, self.images = iter(batches), device, images
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: Batch | Exception | None = None
        self._gap: tuple[Any, Any] | None = None
        self.waited = 0.0

    def __next__(self) -> Batch:
        began = perf_counter()
        if self._ahead is None:
            self._fetch()
        self.waited = perf_counter() - began + self._idle()
        batch, self._ahead = self._ahead, None
        if isinstance(batch, Exception):
            raise batch
        assert batch is not None
        if self._side is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self._side)
            for value in batch.values():
                value.record_stream(here)
        return batch

    def fetch(self) -> None:
        """Take the next batch from the loader and start copying it. Errors are raised when the batch is used."""
        if self._ahead is None:
            before = self._now()
            self._fetch()
            self._gap = before, self._now()

    def _fetch(self) -> None:
        try:
            with torch.cuda.stream(self._side):  # a stream of None changes nothing
                self._ahead = _all_sent(next(self._source), self.device, self.images)
        except Exception as error:  # noqa: BLE001 - the end of the stream among them
            self._ahead = error

    def _now(self) -> Any:
        """The current time; on a GPU, an event that completes when the work queued so far is done."""
        if self._side is None:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _idle(self) -> float:
        """Return the seconds that the device was idle during the last `fetch`; a CPU is idle for all of it."""
        gap, self._gap = self._gap, None
        if gap is None:
            return 0.0
        before, after = gap
        if self._side is None:
            return float(after - before)
        return before.elapsed_time(after) / 1e3 if after.query() else 0.0


def _all_sent(batch: Batch, device: torch.device, images: Collection[str]) -> Batch:
    return {key: _sent(value, device, key in images) for key, value in batch.items()}


def _sent(value: Tensor, device: torch.device, grey: bool) -> Tensor:
    """Copy a tensor to the device; a constant tensor becomes a single value there, expanded."""
    if not any(value.stride()):
        one = value[(0,) * value.ndim].item()  # on the host; a copy from memory that is not pinned would wait
        return _on_device(torch.full((1,), one, dtype=value.dtype, device=device), grey).expand(value.shape)
    return _on_device(value.to(device, non_blocking=True), grey)


def _on_device(sent: Tensor, grey: bool) -> Tensor:
    """Convert what has arrived: grey bytes and classes become float32."""
    if sent.dtype != torch.uint8:
        return sent.float() if sent.is_floating_point() else sent
    # divide by a tensor: for a plain number, a GPU multiplies by its inverse, which rounds differently
    return sent.float().div_(torch.full((), 255.0, device=sent.device)) if grey else sent.float()
