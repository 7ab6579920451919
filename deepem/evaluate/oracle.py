"""Oracle merge: the best score that any agglomeration of given fragments can reach.

The oracle assigns every fragment to the true object that it overlaps most. No agglomeration can fix the error that
remains, which comes from the network and the fragments. Any further error comes from the agglomeration.
"""

from __future__ import annotations

import numpy as np

from deepem.evaluate.overlaps import Array, Table, summed
from deepem.evaluate.partition import PartitionScore, adapted_rand_of, voi_of
from deepem.utils.errors import InputError


class OracleMerge(PartitionScore):
    """Oracle merge, block by block; see `oracle_merge`."""

    def result(self) -> dict[int, int]:
        """Return the true object of every fragment; 0 for a fragment in unlabelled voxels."""
        fragments, objects = best_objects(self.overlaps.table())
        return dict(zip(fragments.tolist(), objects.tolist(), strict=True))

    def labels(self, fragments: Array) -> Array:
        """Replace the fragments of a block by the ids of their true objects, uint64.

        Raises:
            InputError: a fragment occurs in none of the added blocks.
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
        """Return adapted Rand error and variation of information of the merged fragments, from the table."""
        table = merged(self.overlaps.table())
        return {**adapted_rand_of(table), **voi_of(table)}


def oracle_merge(fragments: Array, truth: Array, *, mask: Array | None = None) -> Array:
    """Merge fragments as the ground truth does, which gives the best segmentation that they allow.

    Args:
        fragments: Ids, any integer type and shape; 0 is no fragment and stays 0.
        truth: Ids of the same shape; voxels of 0 do not count.
        mask: Voxels where it is 0 do not count.

    Returns:
        uint64 ids of the truth: every fragment gets the id of the object it overlaps most, or the lowest such id in a
        tie. Fragments that overlap no object become 0.

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
    """Return all segment ids, ascending, and the object of each; 0 for segment 0 and for segments without an object."""
    every = np.unique(table.segment)
    objects = np.zeros(every.size, np.uint64)
    counted = table.where((table.truth != 0) & (table.segment != 0))
    order = np.lexsort((counted.truth, -counted.voxels, counted.segment))
    segment, truth = counted.segment[order], counted.truth[order]
    first = np.flatnonzero(np.append(True, segment[1:] != segment[:-1])) if segment.size else np.zeros(0, int)
    objects[np.searchsorted(every, segment[first])] = truth[first]
    return every, objects


def merged(table: Table) -> Table:
    """Derive the overlap table of the oracle's segmentation."""
    segment, objects = best_objects(table)
    return summed([Table(table.truth, objects[np.searchsorted(segment, table.segment)], table.voxels)])
