"""Turn probabilities into segments. The result does not depend on how the volume is cut into blocks.

::

    plan.py         what to do, and the blocks
    label.py        phase 1  a block of probabilities -> labels and a record        channels, fragments, connected,
                                                                                    runs, graph, records
    join.py         phase 2  all records -> the regions of the volume and their graph
    select.py       phase 2  regions -> segments, for any threshold                 agglomerate, tree, mutex
    relabel.py      phase 3  labels of a block -> ids of segments                   watershed, split, holes
    whole.py        all three for an array in memory

Phases 1 and 3 process one block at a time. They read data through functions that read a box, and return plain arrays.
Repeating a block gives the same result.
"""

from deepem.segment.whole import segment, sweep

__all__ = ["segment", "sweep"]
