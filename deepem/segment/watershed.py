"""Seeded watershed of a boundary map: seeds grow over the boundary between them, lowest voxels first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepem.segment.plan import Plan
from deepem.segment.runs import measured
from deepem.utils.contiguous import contiguous
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

Ids = NDArray[np.uint64]


def flood(boundary: NDArray[np.uint16], seeds: Ids, mask: NDArray[np.bool_] | None, plan: Plan, area: Box) -> Ids:
    """Grow seeds until they meet.

    Args:
        boundary: (Z, Y, X) uint16, high between objects.
        seeds: (Z, Y, X) uint64 ids; 0 elsewhere.
        mask: Voxels of objects; a connected part without a seed becomes an object of its own.
        plan: Gives the volume that the array lies in, for the ids of such parts.
        area: The box of the array.
    """
    markers, names = renumbered(seeds)
    grown = grow(boundary, markers, mask)
    if mask is not None:
        islands = mask & (grown == 0)
        if islands.any():
            import cc3d

            labels = cc3d.connected_components(islands, connectivity=6, out_dtype=np.uint32)
            first = plan.voxels(area, measured(labels, int(labels.max()))[1]).astype(np.uint64)
            found: Ids = np.append(np.uint64(0), first + np.uint64(1))[labels]
            return np.where(islands, found, names[grown])
    result: Ids = names[grown]
    return result


def grow(height: NDArray[np.uint16], markers: NDArray[np.uint32], mask: NDArray[np.bool_] | None) -> NDArray[np.uint32]:
    """Watershed of a landscape from markers, face-connected, within a mask."""
    try:
        from bioimage_cpp.segmentation import watershed
    except ImportError:
        raise InputError("bioimage-cpp", "not installed", "pip install deepem") from None
    found: NDArray[np.uint32] = watershed(height.astype(np.float32), contiguous(markers), mask=mask)
    return found


def renumbered(ids: Ids) -> tuple[NDArray[np.uint32], Ids]:
    """Renumber ids as 1, 2, ... in ascending order, keeping 0. Also return the id of each number."""
    names, numbers = np.unique(np.append(np.uint64(0), ids.ravel()), return_inverse=True)
    return numbers[1:].astype(np.uint32).reshape(ids.shape), names
