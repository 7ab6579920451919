"""Stitching: a grid of overlapping patches, their blend weights, and one running sum per output.

::

    grid.py     where patches lie
    weights.py  how much each counts, separable, summing to 1 at every voxel
    stitch.py   the scan: patches through the network into the sum, finished planes out
    flips.py    the 16 flips and transposes of test-time augmentation
    augment.py  the average over them, in place
    memory.py   the cut of a volume into columns and runs that fit in memory
    patch_network.py   a network as the scan wants it: patches in, probabilities of the output patch out
    inference.py       all of this for an image in memory
"""
