"""Probabilities as uint16, and what their channels mean.

An edge (dz, dy, dx) relates voxel v to v - edge, and its affinity is stored at v. Decoders need the nearest pairs
(v, v - 1) along each axis. Channels may come in any order, and edges may point either way::

    edge  (0, 0, 1)   stored at v        pair (v, v - 1)   used as it is
    edge  (0, 0, -1)  stored at v - 1    pair (v, v - 1)   shifted by one voxel
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.utils.edges import edge_slices, edge_views
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

FULL = 65535
"""The uint16 value that stands for 1. With only 256 levels, plateaus break a volume into many times more fragments."""

AXES: tuple[Vec3, Vec3, Vec3] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
"""The nearest edges in array order."""

SLACK = 1e-3
"""How far a float may lie outside [0, 1] and still count as a rounding error."""


def quantise(probabilities: NDArray[Any]) -> NDArray[np.uint16]:
    """Convert probabilities to uint16, ``round(65535 * p)``.

    Args:
        probabilities: Float in [0, 1], or uint16 or uint8 over their whole range.

    Raises:
        InputError: the type is not supported, or values lie outside [0, 1] or are NaN.
    """
    check_type(probabilities.dtype)
    if probabilities.dtype.kind == "f":
        return _quantise_floats(probabilities)
    found: NDArray[np.uint16] = probabilities
    if probabilities.dtype == np.uint8:
        found = np.multiply(probabilities, 257, dtype=np.uint16)
    return found


def _quantise_floats(probabilities: NDArray[Any]) -> NDArray[np.uint16]:
    """Convert section by section, so that a section is read from memory only once."""
    found = np.empty(probabilities.shape, np.uint16)
    scaled = np.empty(probabilities.shape[-2:], np.float32)
    low, high = np.inf, -np.inf
    with np.errstate(invalid="ignore"):  # NaN, which the check below finds
        for index in np.ndindex(probabilities.shape[:-2] if scaled.size else 0):
            np.multiply(probabilities[index], FULL, out=scaled, dtype=np.float32)
            lowest, highest = scaled.min(), scaled.max()
            low, high = np.minimum(low, lowest), np.maximum(high, highest)
            scaled += np.float32(0.5)
            if lowest < 0 or highest > FULL:
                np.clip(scaled, 0, FULL, out=scaled)
            np.copyto(found[index], scaled, casting="unsafe")
    if found.size and not (low >= -SLACK * FULL and high <= (1 + SLACK) * FULL):
        raise InputError("probabilities", f"values from {low / FULL:.4g} to {high / FULL:.4g}", "numbers in [0, 1]")
    return found


def check_type(dtype: np.dtype[Any]) -> None:
    """Raise unless the type can hold probabilities.

    Raises:
        InputError: the type is neither float nor uint8 nor uint16.
    """
    if dtype.kind != "f" and dtype not in (np.uint8, np.uint16):
        raise InputError("probabilities", dtype, "float in [0, 1], or uint16, or uint8")


def level(threshold: float) -> int:
    """Convert a threshold to uint16; affinities above it are joined.

    Raises:
        InputError: the threshold lies outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise InputError("threshold", threshold, "an affinity in [0, 1]")
    return int(quantise(np.array([threshold], np.float32))[0])


@dataclass(frozen=True)
class Channels:
    """Assignment of channels to pairs of voxels.

    Attributes:
        near: For each axis (z, y, x), the channel of the nearest pairs and its edge, one voxel long in either
            direction.
        far: The channels of all other edges.
    """

    near: tuple[tuple[int, Vec3], ...]
    far: tuple[tuple[int, Vec3], ...]

    @classmethod
    def of(cls, edges: Sequence[Sequence[int]]) -> Channels:
        """Sort edges (dz, dy, dx), one per channel, into nearest and long-range ones.

        Raises:
            InputError: an axis has no nearest edge, an edge has length 0, or two channels hold the same pairs.
        """
        near: dict[int, tuple[int, Vec3]] = {}
        far: list[tuple[int, Vec3]] = []
        seen: set[Vec3] = set()
        for channel, edge in enumerate(vec3(edge) for edge in edges):
            pair = max(edge, vec3(-d for d in edge))
            if pair == (0, 0, 0):
                raise InputError("edges", edge, "the distance of two voxels")
            if pair in seen:
                raise InputError("edges", f"two channels for {pair}", "one channel for the same pairs of voxels")
            seen.add(pair)
            if pair in AXES:
                near[AXES.index(pair)] = channel, edge
            else:
                far.append((channel, edge))
        if len(near) < 3:
            missing = [axis for i, axis in enumerate(AXES) if i not in near]
            raise InputError("edges", [vec3(e) for e in edges], f"the nearest edge along every axis: no {missing[0]}")
        return cls(tuple(near[axis] for axis in range(3)), tuple(far))


def nearest(values: NDArray[np.uint16], channels: Channels, mask: NDArray[np.bool_] | None) -> NDArray[np.uint16]:
    """Affinities of (v, v - 1) along z, y and x as (3, Z + 1, Y + 1, X + 1) uint16; 0 if v - 1 lies outside.

    The last plane of every axis is 0, so that the pairs (v + 1, v) are a view as well.
    """
    found = np.zeros((3, *(n + 1 for n in values.shape[1:])), np.uint16)
    for axis, (channel, edge) in enumerate(channels.near):
        inside = found[axis, :-1, :-1, :-1]
        edge_views(inside, AXES[axis])[0][...] = edge_views(values[channel], edge)[0]
        if mask is not None:
            clear(inside, AXES[axis], mask)
    return found


def clear(affinity: NDArray[np.uint16], edge: Vec3, mask: NDArray[np.bool_]) -> None:
    """Set to 0, in place, the affinity of every pair that does not lie within the mask with both voxels."""
    here = edge_slices(edge)[0]
    first, second = edge_views(mask, edge)
    if first.size:
        affinity[here] *= first & second
