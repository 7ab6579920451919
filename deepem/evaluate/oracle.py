"""Oracle merge: the best that any agglomeration of given fragments could reach.

Every fragment goes to the true object that it shares most voxels with. What is then still wrong, no agglomeration can
mend: it is the error of the network and the fragments. The rest of an error is that of the agglomeration.
"""

from __future__ import annotations

import numpy as np

from deepem.evaluate.overlaps import Array, Table, summed
from deepem.evaluate.partition import PartitionScore, adapted_rand_of, voi_of
from deepem.utils.errors import InputError


class OracleMerge(PartitionScore):
    """Oracle merge, block by block; see `oracle_merge`."""

    def result(self) -> dict[int, int]:
        """The true object of every fragment; 0 for one that lies where nothing is labelled."""
        fragments, objects = best_objects(self.overlaps.table())
        return dict(zip(fragments.tolist(), objects.tolist(), strict=True))

    def labels(self, fragments: Array) -> Array:
        """A block of fragments with the ids of their true objects, uint64.

        Raises:
            InputError: a fragment was in no block that was added.
        """
        known, objects = best_objects(self.overlaps.table())
        ids, inverse = np.unique(fragments, return_inverse=True)
        ids = ids.astype(np.uint64)
        at = np.searchsorted(known, ids)
        missing = ids[(at == len(known)) | (known[np.minimum(at, len(known) - 1)] != ids)] if len(known) else ids
        if missing.size:
            raise InputError("fragments", f"the id {missing[0]}", "ids of the blocks that were added")
        return objects[at][inverse.reshape(-1)].reshape(fragments.shape)

    def scores(self) -> dict[str, float]:
        """Adapted Rand error and variation of information of the merged fragments, without another look at voxels."""
        table = merged(self.overlaps.table())
        return {**adapted_rand_of(table), **voi_of(table)}


def oracle_merge(fragments: Array, truth: Array, *, mask: Array | None = None) -> Array:
    """Fragments joined as the truth would have them: the best segmentation that they allow.

    Args:
        fragments: Ids, any integer type and shape; 0 is no fragment and stays 0.
        truth: Ids of the same shape; voxels of 0 do not count.
        mask: Voxels where it is 0 do not count.

    Returns:
        uint64 ids of the truth: every fragment has that of the object it shares most voxels with, of equals the
        lowest; 0 where a fragment touches no object.

    Raises:
        InputError: the shapes differ, or an array does not hold whole numbers from 0 on.
    """
    fragments = np.asarray(fragments)
    score = OracleMerge()
    score.add(fragments, truth, mask=mask)
    known, objects = best_objects(score.overlaps.table())
    ids, inverse = np.unique(fragments, return_inverse=True)
    ids = ids.astype(np.uint64)
    found = np.zeros(ids.size, np.uint64)
    counted = np.isin(ids, known)
    found[counted] = objects[np.searchsorted(known, ids[counted])]
    return found[inverse.reshape(-1)].reshape(fragments.shape)


def best_objects(table: Table) -> tuple[Array, Array]:
    """All ids of a segmentation, rising, and the object of each; 0 for segment 0 and for one without an object."""
    every = np.unique(table.segment)
    objects = np.zeros(every.size, np.uint64)
    counted = table.where((table.truth != 0) & (table.segment != 0))
    order = np.lexsort((counted.truth, -counted.voxels, counted.segment))
    segment, truth = counted.segment[order], counted.truth[order]
    first = np.flatnonzero(np.append(True, segment[1:] != segment[:-1])) if segment.size else np.zeros(0, int)
    objects[np.searchsorted(every, segment[first])] = truth[first]
    return every, objects


def merged(table: Table) -> Table:
    """The table that the oracle's segmentation would have."""
    segment, objects = best_objects(table)
    return summed([Table(table.truth, objects[np.searchsorted(segment, table.segment)], table.voxels)])
