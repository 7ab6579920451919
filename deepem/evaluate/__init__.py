"""Scores of segmentations, binary maps, classes, affinities, instances, detections and skeletons.

Every score is a function of whole arrays and a class that takes blocks: `add(block...)`, then `result()`, which gives
the same digits however the volume is cut. Results are plain dicts; what has no value is NaN.

::

    overlaps.py         how many voxels each pair of ids shares; what most scores are made from
    partition.py        adapted Rand error, variation of information, CREMI score
    oracle.py           the best that an agglomeration of given fragments could reach
    worst.py            the worst splits and merges, with their places
    skeletons.py        expected run length
    voxels.py           binary maps, classes, affinities; on ranking.py
    instance_scores.py  objects by mask and by box; on matching.py and box_overlap.py
    detected.py         synapses found, by overlap or distance
    borders.py          leave out what lies near a border of the truth
    choice.py           scores over thresholds, and the choice of one
    picture.py          curves and cut-outs as a PNG

Several scores of one segmentation need one look at its voxels: fill `Overlaps(places=True)` and hand it to
`AdaptedRand`, `Voi`, `Cremi`, `OracleMerge`, `Objects` and `row_of`. Tables of several processes are joined by `merge`.
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
