"""The three phases as a queue runs them: blocks in any order, everything that passes between them in npz files."""

from __future__ import annotations

import numpy as np

from deepem.segment.join import Regions, join
from deepem.segment.label import label_block
from deepem.segment.records import Record
from deepem.segment.relabel import relabel_block
from deepem.segment.select import group, segment_ids
from deepem.segment.tree import MergeTree


def saved(path, arrays):
    """What comes back from a file that holds no pickles."""
    np.savez(path, **arrays)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


class Phases:
    """One segmentation in a folder; `labels` and `out` stand for volumes on disk."""

    def __init__(self, folder, plan, values, mask=None):
        self.folder, self.plan, self.values, self.mask = folder, plan, values, mask
        self.labels = np.full(plan.volume.size, 2**32 - 1, np.uint32)
        self.out = np.full(plan.volume.size, 2**64 - 1, np.uint64)
        self.reads = []

    def read(self, array):
        begin = self.plan.volume.begin

        def read(box):
            self.reads.append(box)
            return array[(..., *box.shift(-b for b in begin).slices())].copy()

        return None if array is None else read

    def here(self, box):
        return box.shift(-b for b in self.plan.volume.begin).slices()

    def label(self, index):
        box = self.plan.boxes[index]
        self.labels[self.here(box)], record = label_block(self.plan, box, self.read(self.values), self.read(self.mask))
        np.savez(self.folder / f"{index}.npz", **record.arrays())

    def load(self, index):
        with np.load(self.folder / f"{index}.npz", allow_pickle=False) as file:
            return Record.from_arrays(file)

    def solve(self, threshold=None, **sizes):
        threshold = self.plan.threshold if threshold is None else threshold
        joined = join(self.plan, self.load)
        self.regions = Regions.from_arrays(saved(self.folder / "regions.npz", joined.arrays()))
        self.ids = segment_ids(self.plan, self.regions, group(self.plan, self.regions, threshold), **sizes)

    def relabel(self, index):
        box = self.plan.boxes[index]
        readers = (self.read(x) for x in (self.labels, self.values, self.mask))
        self.out[self.here(box)] = relabel_block(self.plan, box, self.regions, self.ids, *readers)

    def run(self, order=None, **sizes):
        order = range(len(self.plan.boxes)) if order is None else order
        for index in order:
            self.label(index)
        self.solve(**sizes)
        for index in order:
            self.relabel(index)
        return self.out


def tree_of(path, tree):
    """A tree that was on disk."""
    return MergeTree.from_arrays(saved(path, tree.arrays()))
