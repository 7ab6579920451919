"""Stitching: a grid of overlapping patches, their blend weights, and one running sum per output.

::

    grid.py            patch positions
    weights.py         blend weights: separable, summing to 1 at every voxel
    stitch.py          the scan: runs the network on patches, sums its outputs, yields finished planes
    flips.py           the 16 flips and transposes of test-time augmentation
    augment.py         the running average over flips
    memory.py          splits a volume into columns and runs that fit in memory
    patch_network.py   wraps a network: maps input patches to probabilities of output patches
    overlap.py         reads ahead of the network and writes behind it
    inference.py       all of this for an image in memory
"""
