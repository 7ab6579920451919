"""A torch Dataset of an index's crops: images with the boxes, classes and masks of their objects."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepem.data.crop_database import BOX
from deepem.data.crop_index import CropIndex
from deepem.data.labelled_folder import IMAGE, LABEL, Entry, chosen_channels, scaled
from deepem.io.files import opened
from deepem.utils.geometry import Box, vec3

Item = tuple[Tensor, dict[str, Tensor]]


class CropItems(torch.utils.data.Dataset[Item]):
    """The crops of an index; each is read on access.

    An item is ``image`` (C, Z, Y, X) float32 in [0, 1] and ``target``: ``boxes`` (N, 6) float32, half-open, ``labels``
    (N,) int64, ``masks`` (N, Z, Y, X) uint8, and ``ids`` (N,) int64.

    Args:
        index: The index of crops.
        channels: Channels of the image to use; all by default.
        low: Grey value that maps to 0; see `deepem.data.labelled_folder.image_of`.
        high: Grey value that maps to 1.
        transforms: Called with (image, target); its result becomes the item.
    """

    def __init__(
        self,
        index: CropIndex,
        channels: Sequence[int] | None = None,
        low: float | None = None,
        high: float | None = None,
        transforms: Callable[[Tensor, dict[str, Tensor]], Item] | None = None,
    ) -> None:
        self.index, self.channels, self.low, self.high, self.transforms = index, channels, low, high, transforms
        self._open: dict[int, tuple[ExitStack, dict[Path, Any]]] = {}

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> Item:
        if not 0 <= place < len(self):
            raise IndexError(place)
        row, objects = self.index.crop(place)
        entry = Entry(Path(self.index.wanted.folder), row.volume)
        image, labels = (self._stored(entry.need(key)) for key in (IMAGE, LABEL))
        size = (min(n, s - b) for n, s, b in zip(self.index.wanted.crop, labels.size, (row.z, row.y, row.x),
                                                 strict=True))  # fmt: skip
        box = Box.of_size((row.z, row.y, row.x), vec3(size))
        channels = self.channels if row.channel < 0 else [row.channel]
        where = entry.need(IMAGE)
        grey = scaled(where, chosen_channels(where, image.read(box), channels), self.low, self.high)
        if grey.dtype == np.uint8:
            grey = grey.astype(np.float32) / np.float32(255)
        made = torch.from_numpy(np.ascontiguousarray(grey)), target_of(labels.read(box)[0], objects)
        return made if self.transforms is None else self.transforms(*made)

    def _stored(self, path: Path) -> Any:
        """Open a volume, once in each process."""
        if os.getpid() not in self._open:
            self._open = {os.getpid(): (ExitStack(), {})}
            weakref.finalize(self, self._open[os.getpid()][0].close)
        stack, held = self._open[os.getpid()]
        if path not in held:
            held[path] = stack.enter_context(opened(path, sparse=True))
        return held[path]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files, which belong to one process."""
        return {**self.__dict__, "_open": {}}


def target_of(ids: Any, objects: Sequence[Any]) -> dict[str, Tensor]:
    """Return boxes, classes, masks and ids of a crop's objects, from its ids (Z, Y, X) and the rows of the index."""
    names = np.array([row.object for row in objects], np.int64)
    masks = np.zeros((len(objects), *ids.shape), np.uint8)
    for mask, row in zip(masks, objects, strict=True):
        inside = Box((row.z1, row.y1, row.x1), (row.z2, row.y2, row.x2)).slices()
        mask[inside] = ids[inside] == row.object
    boxes = [[getattr(row, name) for name in BOX] for row in objects]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6),
        "labels": torch.tensor([row.label for row in objects], dtype=torch.int64),
        "masks": torch.from_numpy(masks),
        "ids": torch.from_numpy(names),
    }
