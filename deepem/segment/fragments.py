"""Watershed fragments: every voxel follows its steepest edge.

An edge is kept if it is above `low` and the steepest edge of at least one of its voxels (the first one in a tie), or if
it is `high` or more. Fragments are the connected components of the kept edges. Whether an edge is kept depends only on
affinities up to two voxels away, so blocks with a halo of two voxels keep exactly the same edges as the whole volume.

The steepest edges form chains that end where two voxels choose the same edge. All chains are followed at once, by
doubling steps: each voxel takes over the target of its target. Plateaus, where edges are `high` or more, are joined
afterwards. A general labelling of connected components gives the same fragments, but takes twice as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import FULL
from deepem.segment.graph import united
from deepem.segment.runs import flat_steps, shifted

HALO = 2
LOW, HIGH = round(1e-4 * FULL), round(0.9999 * FULL)

Bits = NDArray[np.uint8]

DOWN, UP = (1, 4, 16), (2, 8, 32)
"""Bits of the edges to the previous and to the next voxel, along z, y and x. The lowest bit wins a tie."""

PLATEAU = 64
"""Bit of a voxel with edges of `high` or more, all of which are kept."""

_CHUNK = 1 << 18
"""Voxels at a time, so that what is computed from them stays in the processor's cache."""

_DOUBLINGS = 4
"""Times that all chains are followed further, until few are left."""


def steepest(near: NDArray[np.uint16], low: int = LOW, high: int = HIGH) -> Bits:
    """Return the steepest edges of each voxel as bits, several in a tie; 0 is background.

    Args:
        near: From `nearest`, (3, Z + 1, Y + 1, X + 1).
        low: A voxel is background if none of its affinities is above this.
        high: Edges of this affinity or more count as equal.

    Returns:
        (Z, Y, X) uint8 bits of DOWN, UP and PLATEAU.
    """
    _, z, y, x = near.shape
    voxels, steps = (z - 1) * y * x, flat_steps((z, y, x))
    flat, found = near.reshape(3, -1), np.empty(voxels, np.uint8)
    top, true = np.empty(_CHUNK, np.uint16), np.empty(_CHUNK, bool)
    for begin in range(0, voxels, _CHUNK):
        end = min(begin + _CHUNK, voxels)
        down = [flat[axis, begin:end] for axis in range(3)]
        up = [flat[axis, begin + step : end + step] for axis, step in enumerate(steps)]  # 0 in the last planes
        _steepest_of(down, up, low, high, top[: end - begin], true[: end - begin], found[begin:end])
    return found.reshape(z - 1, y, x)[:, :-1, :-1]


def _steepest_of(
    down: list[NDArray[np.uint16]],
    up: list[NDArray[np.uint16]],
    low: int,
    high: int,
    top: NDArray[np.uint16],
    true: NDArray[np.bool_],
    out: Bits,
) -> None:
    """Write the bits of some voxels to `out`; `top` and `true` are scratch."""
    bit = true.view(np.uint8)
    np.maximum(down[0], up[0], out=top)
    for edges in (down[1], up[1], down[2], up[2]):
        np.maximum(top, edges, out=top)
    np.greater_equal(top, high, out=true)
    np.multiply(bit, PLATEAU, out=out)
    foreground = top > low
    np.minimum(top, high, out=top)
    for bits, sides in ((DOWN, down), (UP, up)):
        for value, edges in zip(bits, sides, strict=True):
            np.greater_equal(edges, top, out=true)
            np.multiply(bit, value, out=bit)
            np.bitwise_or(out, bit, out=out)
    np.multiply(out, foreground.view(np.uint8), out=out)


def _first(bits: int) -> int:
    """The kept edges of a voxel: all on a plateau, otherwise the first."""
    return bits if bits & PLATEAU else bits & -bits


def _without(bits: int, leaving: int) -> int:
    """The bits of a voxel at a face that one edge leaves through; a voxel that follows it stays where it is."""
    first = _first(bits)
    return (first & ~leaving) | PLATEAU if first & leaving else bits


def _followed(bits: int) -> int:
    """The number of the edge that a voxel follows, from 1 in the order of the bits; 0 if it stays where it is.

    No voxel goes up on a plateau, because chains over plateaus could otherwise go round in a circle.
    """
    ways = bits & sum(DOWN) if bits & PLATEAU else bits
    return (ways & -ways).bit_length()


_ANY = range(2 * PLATEAU)
_KEPT = np.array([_first(bits) for bits in _ANY], np.uint8)
_FOLLOWED = np.array([_followed(bits) for bits in _ANY], np.uint8)
_WITHOUT = {bit: np.array([_without(bits, bit) for bits in _ANY], np.uint8) for bit in (*DOWN, *UP)}


def across(steep: Bits, partner: Bits, axis: int) -> NDArray[np.bool_]:
    """Whether the edges (v, v - 1) along an axis are kept, from the steepest edges of v and of v - 1."""
    kept = _KEPT[steep] & DOWN[axis] | _KEPT[partner] & UP[axis]
    found: NDArray[np.bool_] = kept.astype(bool)
    return found


def fragments(steep: Bits) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
    """Label the fragments of an array; edges that leave the array are ignored.

    Args:
        steep: From `steepest`, (Z, Y, X).

    Returns:
        (Z, Y, X) from 1, of the narrowest unsigned type, with 0 for background, and the number of fragments.
    """
    steep = _within(steep)
    parent = _targets(steep)
    root = parent.take(parent)
    ends = np.flatnonzero(root == np.arange(parent.size, dtype=np.int32))
    root[ends] = np.minimum(ends, parent[ends])  # of two voxels that choose the same edge, the first
    root = _ends_of(root)
    ends = ends[(root[ends] == ends) & (steep.ravel()[ends] > 0)]
    place = np.empty(root.size, np.int32)
    place[ends] = np.arange(len(ends))
    group = united(place[_plateau_pairs(root, steep)], len(ends))
    lowest = group == np.arange(len(ends))
    count = int(lowest.sum())
    number = np.zeros(root.size, np.min_scalar_type(count))
    number[ends] = np.cumsum(lowest)[group]
    return number.take(root).reshape(steep.shape), count


def _within(steep: Bits) -> Bits:
    """Copy the steepest edges without those that leave the array."""
    found: Bits = steep.copy()
    for axis in range(3):
        for plane, bit in ((0, DOWN[axis]), (-1, UP[axis])):
            face = found[(slice(None),) * axis + (plane,)]
            face[...] = _WITHOUT[bit][face]
    return found


def _targets(steep: Bits) -> NDArray[np.int32]:
    """The voxel that each voxel follows, as a flat index: itself, or a neighbour in the same fragment."""
    steps = [0] + [sign * step for step in flat_steps(steep.shape) for sign in (-1, 1)]
    found = np.array(steps, np.int32)[_FOLLOWED].take(steep.ravel())
    found += np.arange(found.size, dtype=np.int32)
    return found


def _ends_of(target: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where the chain of each voxel ends, in place; the last voxel of a chain follows itself."""
    for _ in range(_DOUBLINGS):
        for begin in range(0, len(target), _CHUNK):
            part = target[begin : begin + _CHUNK]
            part[...] = target.take(part)
    left = np.flatnonzero(target.take(target) != target)
    while len(left):
        here = target[left]
        there = target[here]
        target[left] = there
        left = left[here != there]
    return target


def _plateau_pairs(root: NDArray[np.int32], steep: Bits) -> NDArray[np.int32]:
    """(N, 2) ends of chains that edges of plateaus join. Those along z join none: each is followed.

    Of neighbouring edges that join the same two, only one is returned.
    """
    _, row, one = flat_steps(steep.shape)
    same = {step: np.equal(*shifted(root, step)) for step in (row, one)}
    found = [np.zeros((0, 2), np.int32)]
    for axis, step, along in ((1, row, one), (2, one, row)):
        wanted = np.uint8(PLATEAU | DOWN[axis])
        meets = (steep.ravel()[step:] & wanted) == wanted
        meets &= ~same[step]
        first, second = shifted(same[along], step)
        again = meets[: len(first)] & first & second
        meets[along:] &= ~again
        here = np.flatnonzero(meets)
        found.append(np.stack([root[here], root[here + step]], axis=1))
    return np.concatenate(found)
