"""What a worker is asked for, and what it reads ahead because of it."""

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
"""Samples whose chunks are read ahead, in each worker."""


@dataclass(frozen=True)
class Order:
    """What the loader asks of a worker: a batch."""

    number: int
    indices: range


class Orders:
    """What the loader asks for, in order; what lies in the pipe already can be seen ahead."""

    def __init__(self, loader: Connection, parent: int) -> None:
        self._loader, self._parent = loader, parent
        self._waiting: deque[Order | None] = deque()

    def next(self) -> Order | None:
        """The next order; None when there will be no more, or the loader is gone."""
        while not self._waiting and not self._loader.poll(POLL_S):
            if os.getppid() != self._parent:
                return None
        self._receive()
        return self._waiting.popleft()

    def upcoming(self) -> list[int]:
        """The samples of the orders behind."""
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
    """Reads what the samples after this one need while this one is made, in a thread.

    Where a patch lies follows from its sample's index alone, so that it is known before the sample is made.

    Args:
        fetch: Reads what a sample needs, by its index.
    """

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._indices: deque[int] = deque()
        self._last = -1
        self._more = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="deepem-ahead").start()

    def expect(self, indices: Sequence[int]) -> None:
        """Read what these samples need; the first is being made now."""
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
