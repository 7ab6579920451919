"""Shared memory into which a worker writes its batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.data.shared import Array, map_file, memory_file

IN_USE = -1
"""Index of the byte in a slot that is 1 while the slot's batch is being made or the loader's process still uses it."""


class Slots:
    """The slots of one worker: shared memory for batches, reused once the loader's process has released it.

    A slot is allocated when one is needed. The size of a batch need not be known in advance, and space never runs out.
    """

    def __init__(self) -> None:
        self.memory: list[Array] = []
        self.files: dict[int, Any] = {}
        self.recent: list[int] = []

    @property
    def last(self) -> int:
        """The slot that `take` returned last."""
        return self.recent[-1]

    def take(self, size: int) -> Array:
        """Return a free slot of at least `size` bytes; prefer the last one, which is still in the CPU caches."""
        free = (slot for slot in reversed(self.recent) if not self.memory[slot][IN_USE])
        slot = next((slot for slot in free if len(self.memory[slot]) > size), len(self.memory))
        if slot < len(self.memory):
            self.recent.remove(slot)
        else:
            self.files[slot] = memory_file(size + 1)
            self.memory.append(map_file(self.files[slot].fileno(), (size + 1,), np.uint8))
        self.recent.append(slot)
        return self.memory[slot]
