"""Crop half of the batches to the centre of their sections."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.utils.crop import centre_crop

PROBABILITY = 0.5


class Modifier:
    """With probability 1/2, crop every array of a batch to the centre half in y and x (views, no copies).

    This mixes batches with a large field of view and batches that cost a quarter as much.
    """

    def __call__(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the batch (N, C, Z, Y, X), or its centre."""
        if rng.random() >= PROBABILITY:
            return batch
        return {key: _centre(array) for key, array in batch.items()}


def _centre(array: Any) -> Any:
    z, y, x = array.shape[-3:]
    return centre_crop(array, (z, y // 2, x // 2))
