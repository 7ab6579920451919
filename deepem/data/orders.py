"""A worker's queue of ordered batches, and the thread that reads ahead for them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

POLL_S = 1.0

AHEAD = 2
"""Number of samples for which each worker reads ahead."""


@dataclass(frozen=True)
class Order:
    """An order of one batch, which the loader sends to a worker."""

    number: int
    indices: range


class Orders:
    """The orders from the loader, in sequence; orders already in the pipe can be inspected early."""

    def __init__(self, loader: Connection, parent: int) -> None:
        self._loader, self._parent = loader, parent
        self._waiting: deque[Order | None] = deque()

    def next(self) -> Order | None:
        """Wait for the next order; return None if no more will come or the loader's process is gone."""
        while not self._waiting and not self._loader.poll(POLL_S):
            if os.getppid() != self._parent:
                return None
        self._receive()
        return self._waiting.popleft()

    def upcoming(self) -> list[int]:
        """Return the sample indices of the orders after the current one."""
        return [index for order in self._waiting if order is not None for index in order.indices]

    def _receive(self) -> None:
        while self._loader.poll(0):
            try:
                self._waiting.append(self._loader.recv())
            except EOFError:
                self._waiting.append(None)
            if self._waiting[-1] is None:
                return


class Ahead:
    """A thread that reads the data of the next samples while the current one is made.

    The location of a patch depends only on the sample's index, so it is known before the sample is made.

    Args:
        fetch: Reads the data of the sample with a given index.
    """

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._indices: deque[int] = deque()
        self._last = -1
        self._more = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="deepem-ahead").start()

    def expect(self, indices: Sequence[int]) -> None:
        """Read ahead for these samples; the first one is being made already."""
        self._indices = deque([index for index in indices[1 : 1 + AHEAD] if index > self._last])
        self._more.set()

    def _run(self) -> None:
        while True:
            self._more.wait()
            self._more.clear()
            while self._indices:
                with suppress(IndexError):
                    self._last = self._indices.popleft()
                    self._fetch(self._last)
