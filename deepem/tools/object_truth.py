"""The truth of objects that were made of a map, such as mitochondria: instance ids, or components of a yes or no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from deepem.tools import output
from deepem.tools.predictions import Laid
from deepem.utils.geometry import Box, Vec3

Ids = Callable[[Box], NDArray[Any]]
"""Reads the ids (Z, Y, X) of a box."""


def instances_of(label: str, truth: Laid, size: Vec3, name: str) -> Ids:
    """Return the function that reads true ids, of which a label that only says yes or no has none.

    Args:
        label: The label; `seg` always holds ids.
        truth: Its volume.
        size: Size of the prediction.
        name: File of the truth, named in the line that is printed if connected components become the objects. They are
            found in the whole volume, which is held in memory.
    """
    if label == "seg":
        return lambda box: truth.read(box)[0]
    whole = truth.read(Box((0, 0, 0), size))[0]
    if whole.max() > 1:
        return lambda box: whole[box.slices()]
    output.say(f"{name}: holds no ids; its connected components (6 neighbours) count as the true objects")
    import cc3d

    found = cc3d.connected_components(whole > 0, connectivity=6)
    return lambda box: found[box.slices()]
