"""Labelled volumes, the affinities that a perfect network would give for them, and noisy ones."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from deepem.data.synth.volume import make_volume
from deepem.utils.edges import edge_views

XYZ = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
LONG = (*XYZ, (0, 0, -4), (0, 7, 0), (5, 0, 0), (1, -1, 2))


def oracle(labels, edges=XYZ):
    """(C, Z, Y, X) float32: 1 where v and v - edge have the same label and it is not 0."""
    found = np.zeros((len(edges), *labels.shape), np.float32)
    for affinity, edge in zip(found, edges, strict=True):
        first, second = edge_views(labels, edge)
        edge_views(affinity, edge)[0][...] = (first == second) & (first != 0)
    return found


def noisy(labels, edges=XYZ, seed=0, noise=0.1):
    """Affinities as a network that is unsure gives them."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(oracle(labels, edges), (0, 0.7, 0.7, 0.7))
    return np.clip(smooth + rng.normal(0, noise, smooth.shape), 0, 1).astype(np.float32)


def random_affinities(shape, channels=3, seed=0, levels=None):
    """Affinities without any structure; few levels make ties."""
    values = np.random.default_rng(seed).random((channels, *shape), np.float32)
    return values if levels is None else np.round(values * levels).astype(np.float32) / np.float32(levels)


def pieces(labels):
    """The parts of each label that faces connect, from 1; 0 stays 0."""
    found, count = np.zeros(labels.shape, np.int64), 0
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if box is not None:
            parts, more = ndimage.label(labels[box] == label)
            found[box][parts > 0] = parts[parts > 0] + count
            count += more
    return found


def cells(shape=(20, 48, 44)):
    """Instances that touch without a gap, and myelin (0)."""
    return make_volume("segment", shape)["seg"]


def adapted_rand_error(found, truth):
    """1 - F1 of the pairs of voxels that truth labels, self-pairs counted, a predicted 0 a segment of its own."""
    counts = truth > 0
    a, b = truth[counts].astype(np.int64), found[counts].astype(np.int64)
    b = np.where(b == 0, -1 - np.arange(len(b)), b)
    _, both = np.unique(np.stack([a, b]), axis=1, return_counts=True)
    sizes = [np.unique(x, return_counts=True)[1] for x in (a, b)]
    together, *each = (float(np.sum(np.square(x.astype(np.float64)))) for x in (both, *sizes))
    return 1 - 2 * together / sum(each)


def same_partition(one, other):
    """Whether two labellings put the same voxels together."""
    pairs = np.unique(np.stack([one.ravel().astype(np.int64), other.ravel().astype(np.int64)]), axis=1)
    return all(len(np.unique(x)) == pairs.shape[1] for x in pairs)
