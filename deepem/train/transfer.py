"""Batches on their way to the device."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class DeviceBatches(Iterator[Batch]):
    """Batches on the device. With `fetch`, the next one travels to a GPU while the GPU computes.

    Grey values and classes travel as bytes. From here on, for modifiers and losses, they are float32, and grey values
    in [0, 1].

    Args:
        batches: From the loader.
        device: Where they go.
        images: The keys of grey values.

    Attributes:
        waited: Seconds that the device had nothing to do for want of the batch that was given last.
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
        """Take the next batch from the loader and send it; what fails is raised when that batch is due."""
        if self._ahead is None:
            before = self._now()
            self._fetch()
            self._gap = before, self._now()

    def _fetch(self) -> None:
        try:
            with torch.cuda.stream(self._side):  # of None: nothing
                self._ahead = _all_sent(next(self._source), self.device, self.images)
        except Exception as error:  # noqa: BLE001 - the end of the stream among them
            self._ahead = error

    def _now(self) -> Any:
        """The time; for a GPU the moment at which what was asked of it so far is done."""
        if self._side is None:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _idle(self) -> float:
        """Seconds for which the device had nothing to do during the last `fetch`: a CPU for all of it."""
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
    """The tensor on the device; one that is a single value throughout travels as that value."""
    if not any(value.stride()):
        return _sent(value[(0,) * value.ndim].reshape(1), device, grey).expand(value.shape)
    sent = value.to(device, non_blocking=True)
    if sent.dtype != torch.uint8:
        return sent.float() if sent.is_floating_point() else sent
    # divided by a tensor: by a plain number a GPU would multiply with its inverse, which rounds differently
    return sent.float().div_(torch.full((), 255.0, device=device)) if grey else sent.float()
