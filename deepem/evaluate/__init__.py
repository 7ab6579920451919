"""Scores of segmentations, binary maps, classes, affinities, instances, detections and skeletons.

Every score comes as a function of whole arrays and as a class that takes blocks: call `add(block...)` for each block,
then `result()`. The digits do not depend on how the volume is cut. Results are plain dicts; undefined values are NaN.

::

    overlaps.py         count of shared voxels for each pair of ids; most scores start from this table
    partition.py        adapted Rand error, variation of information, CREMI score
    oracle.py           the best score that any agglomeration of given fragments can reach
    worst.py            the worst splits and merges, and where they are
    skeletons.py        expected run length
    voxels.py           binary maps, classes, affinities; uses ranking.py
    instance_scores.py  objects by mask and by box; uses matching.py and box_overlap.py
    detected.py         synapse detection, matched by overlap or by distance
    borders.py          excludes voxels near borders of the ground truth
    choice.py           scores at several thresholds, and choosing one
    picture.py          curves and cut-outs as a PNG

To compute several scores in one pass over the voxels, fill `Overlaps(places=True)` and pass it to `AdaptedRand`, `Voi`,
`Cremi`, `OracleMerge`, `Objects` and `row_of`. `merge` combines the tables of several processes.
"""

from deepem.evaluate.borders import inside
from deepem.evaluate.choice import choose, curve, reported, row_of
from deepem.evaluate.detected import Detections, detections
from deepem.evaluate.instance_scores import Boxes, Instances, boxes, instances
from deepem.evaluate.oracle import OracleMerge, oracle_merge
from deepem.evaluate.overlaps import Overlaps
from deepem.evaluate.partition import AdaptedRand, Cremi, Voi, adapted_rand, cremi, voi
from deepem.evaluate.skeletons import Erl, erl, skeletons_of
from deepem.evaluate.voxels import Affinity, Binary, Semantic, affinity, binary, semantic
from deepem.evaluate.worst import Objects, objects

__all__ = [
    "AdaptedRand",
    "Affinity",
    "Binary",
    "Boxes",
    "Cremi",
    "Detections",
    "Erl",
    "Instances",
    "Objects",
    "OracleMerge",
    "Overlaps",
    "Semantic",
    "Voi",
    "adapted_rand",
    "affinity",
    "binary",
    "boxes",
    "choose",
    "cremi",
    "curve",
    "detections",
    "erl",
    "inside",
    "instances",
    "objects",
    "oracle_merge",
    "reported",
    "row_of",
    "semantic",
    "skeletons_of",
    "voi",
]
