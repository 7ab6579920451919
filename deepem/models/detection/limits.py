"""How many boxes are kept for an image, and how many are worked on at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod

from torch import Tensor

UNIT = 64**3
"""Voxels of an image that has the usual number of boxes."""


def limit(number: int, size: Sequence[int], per: int | None) -> int:
    """Return the largest number of boxes of an image.

    Args:
        number: The number for an image of `per` voxels or fewer. Larger images have more, in proportion, so that a
            volume has as many objects in small tiles as in large ones.
        size: (z, y, x) voxels of the image.
        per: See above; None if the number holds for images of any size.
    """
    return number if per is None else max(number, ceil(number * prod(size) / per))


def in_parts(boxes: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Split the boxes of several images into parts of at most `most`, in order; each part has a list per image."""
    for begin in range(0, max(sum(map(len, boxes)), 1), most):
        part, first = [], 0
        for one in boxes:
            part.append(one[max(begin - first, 0) : max(begin + most - first, 0)])
            first += len(one)
        yield part
