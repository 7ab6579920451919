"""Volumes of ids that hypothesis draws, and their cut into blocks."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

HUGE = [0, 1, 2, 3, 2**24 + 1, 2**53, 2**53 + 1, 2**63, 2**64 - 1]
"""Ids that become equal where they pass through float32 or float64, or negative where through int64."""


@st.composite
def pairs_of_volumes(draw, ids=HUGE, most=5):
    """(segmentation, truth), both (Z, Y, X) uint64."""
    shape = draw(st.tuples(*[st.integers(1, most)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = draw(st.integers(1, len(ids)))
    chosen = [np.array(rng.permutation(np.array(ids, np.uint64))[:few]) for _ in range(2)]
    return tuple(names[rng.integers(0, few, shape)] for names in chosen)


@st.composite
def cuts(draw, shape):
    """Boxes (begin, slices) that tile a shape, in any order."""
    at = []
    for n in shape:
        inner = sorted(draw(st.sets(st.integers(1, n - 1), max_size=2))) if n > 1 else []
        bounds = [0, *inner, n]
        at.append(list(itertools.pairwise(bounds)))
    blocks = [(z, y, x) for z in at[0] for y in at[1] for x in at[2]]
    return [
        (tuple(b for b, _ in block), tuple(slice(b, e) for b, e in block)) for block in draw(st.permutations(blocks))
    ]


def same(a, b) -> bool:
    """Equal to the digit, NaN to NaN."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)
