"""Calls a network that finds objects, box by box, and finds all objects of a volume in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepem.io.volume import Volume
from deepem.models.detection.tiles import handed_on, merged, painted, tiles
from deepem.scan.overlap import tensor
from deepem.utils.geometry import Box, Vec3

Detect = Callable[[Box], Mapping[str, Tensor]]
"""Maps a box of a volume to ``boxes``, ``labels``, ``scores`` and ``mask_probs`` of the objects in it."""


class Detector:
    """Calls a network on a box of a volume.

    It needs no masks as large as the image; `without_pasted_masks` saves making them.

    Args:
        network: Returns, for each image, boxes, labels, scores and, if it predicts them, masks.
        name: Name of that output, such as ``instance``.
        volume: The image.
        device: Device of the network.
        amp: Run in mixed precision.
    """

    def __init__(self, network: nn.Module, name: str, volume: Volume, device: torch.device, amp: bool) -> None:
        self.network, self.name, self.volume, self.device, self.amp = network, name, volume, device, amp

    @torch.no_grad()
    def __call__(self, box: Box) -> Mapping[str, Tensor]:
        """Return the objects in a box, in voxels of the box."""
        image = tensor(self.volume, box, self.device)
        image = image.float() / 255 if image.dtype == torch.uint8 else image.float()
        layout = torch.channels_last_3d
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            found: dict[str, Tensor] = self.network(image[None].contiguous(memory_format=layout))[self.name][0]
        whole = found["boxes"].new_ones(len(found["boxes"]), 1, 1, 1)  # without masks, the object fills its box
        return {"mask_probs": whole, **found}


@contextmanager
def without_pasted_masks(network: nn.Module) -> Iterator[None]:
    """Within this context, the network does not return masks as large as its image, if it would otherwise."""
    inner: Any = getattr(network, "_orig_mod", network)  # the module inside torch.compile
    before = getattr(inner, "paste_masks", None)
    if before is None:
        yield
        return
    inner.paste_masks = False
    try:
        yield
    finally:
        inner.paste_masks = before


def mask_threshold(network: nn.Module) -> float:
    """Return the probability above which a voxel belongs to an object."""
    return float(getattr(network, "mask_threshold", 0.5))


def find_objects(detect: Detect, size: Vec3, tile: Vec3, overlap: Vec3, threshold: float = 0.5) -> NDArray[np.uint64]:
    """Find the objects of a volume tile by tile, as `deepem forward` does, but in memory.

    Args:
        detect: Finds the objects of a box.
        size: Size of the volume, (z, y, x) voxels.
        tile: Size of the network's input.
        overlap: Overlap of neighbouring tiles, (z, y, x) voxels.
        threshold: A voxel with a higher probability belongs to the object.

    Returns:
        Labels (Z, Y, X): 1 to n, 0 for background.
    """
    grid = tiles(size, tile, overlap)
    found = [handed_on(n, one, size, detect(one.box), threshold=threshold) for n, one in enumerate(grid)]
    labels = painted(Box((0, 0, 0), size), enumerate(merged(grid, found), 1))
    seen = np.unique(labels)
    names = np.zeros(int(seen[-1]) + 1, np.uint64)
    names[seen] = np.arange(len(seen)) + (seen[0] > 0)  # the numbers of visible objects, without gaps
    return names[labels]
