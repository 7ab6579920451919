"""Probabilities become segments, the same however the volume is cut.

::

    plan.py         what to do, and the blocks
    label.py        phase 1  a block of probabilities -> labels and a record        channels, fragments, graph, records
    join.py         phase 2  all records -> the regions of the volume and their graph
    select.py       phase 2  regions -> segments, for any threshold                 agglomerate, tree, mutex
    relabel.py      phase 3  labels of a block -> ids of segments                   watershed, split, holes
    whole.py        all three for an array in memory

Phases 1 and 3 take one block at a time and nothing but functions that read boxes; what they pass on is plain arrays. A
block that is done twice is the same twice.
"""

from deepem.segment.whole import segment, sweep

__all__ = ["segment", "sweep"]
