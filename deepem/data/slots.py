"""The memory of a worker that its batches are written into."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.data.shared import Array, map_file, memory_file

IN_USE = -1
"""The byte of a slot that is 1 from when its batch is made until the loader's process no longer has any of it."""


class Slots:
    """Shared memory that batches are written into, and again when the loader's process is done with it.

    Made when it is needed, so that nobody has to know the size of a batch, and there is always room.
    """

    def __init__(self) -> None:
        self.memory: list[Array] = []
        self.files: dict[int, Any] = {}
        self.recent: list[int] = []

    @property
    def last(self) -> int:
        """The slot that was taken last."""
        return self.recent[-1]

    def take(self, size: int) -> Array:
        """A slot of at least so many bytes that is not in use; of those the last one, which is in the caches."""
        free = (slot for slot in reversed(self.recent) if not self.memory[slot][IN_USE])
        slot = next((slot for slot in free if len(self.memory[slot]) > size), len(self.memory))
        if slot < len(self.memory):
            self.recent.remove(slot)
        else:
            self.files[slot] = memory_file(size + 1)
            self.memory.append(map_file(self.files[slot].fileno(), (size + 1,), np.uint8))
        self.recent.append(slot)
        return self.memory[slot]
