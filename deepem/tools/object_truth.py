"""The truth of objects that were made of a map, such as mitochondria: instance ids, or the components of a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.tools import output
from deepem.tools.predictions import Laid
from deepem.utils.geometry import Box, Vec3

Ids = Callable[[Box], NDArray[Any]]
"""Reads the ids (Z, Y, X) of a box."""


def instances_of(label: str, truth: Laid, size: Vec3, name: str) -> Ids:
    """Return the function that reads true ids. A label with a single value, such as 1 or 255, is a mask and has none.

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
    objects = whole > 0
    if len(np.unique(whole[objects])) > 1:
        return lambda box: whole[box.slices()]
    import cc3d

    output.say(f"{name}: holds no ids; its connected components (6 neighbours) count as the true objects")
    found = cc3d.connected_components(objects, connectivity=6)
    return lambda box: found[box.slices()]
