"""Expected run length: how far one can follow a neurite from a random point before the first error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from deepem.evaluate.overlaps import Array
from deepem.utils.errors import InputError

Skeletons = Mapping[int, tuple[Array, Array]]
"""{id: (nodes in nm (N, 3), z, y, x; pairs of node indices (M, 2))}"""


class Erl:
    """Expected run length, block by block; see `erl`. Only the segment ids at the nodes are stored."""

    def __init__(
        self,
        skeletons: Skeletons,
        *,
        merge_threshold: int,
        voxel_size_nm: Sequence[float] = (1, 1, 1),
        offset: Sequence[int] = (0, 0, 0),
        no_merge: Iterable[int] = (),
    ) -> None:
        if merge_threshold < 1:
            raise InputError("merge_threshold", merge_threshold, "1 node or more")
        self.merge_threshold = merge_threshold
        self.no_merge = np.array(sorted(no_merge), np.uint64)
        self.ids = sorted(skeletons)
        nodes, edges, owner = [np.zeros((0, 3))], [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
        count = 0
        for i, name in enumerate(self.ids):
            at, pairs = _skeleton(name, skeletons[name])
            nodes.append(at)
            edges.append(pairs + count)
            owner.append(np.full(len(at), i))
            count += len(at)
        self.nodes, self.edges, self.owner = (np.concatenate(parts) for parts in (nodes, edges, owner))
        self.voxels = np.rint(self.nodes / np.asarray(voxel_size_nm, float)).astype(np.int64) - np.asarray(offset)
        self.segment = np.zeros(count, np.uint64)
        self.seen = np.zeros(count, bool)

    def add(self, segmentation: Array, *, begin: Sequence[int] = (0, 0, 0)) -> None:
        """Read the segment ids at the nodes inside a block.

        Args:
            segmentation: (Z, Y, X) ids, any integer type.
            begin: First voxel of the block in the segmentation, (z, y, x).
        """
        if segmentation.ndim != 3 or segmentation.dtype.kind not in "iu":
            got = f"an array of {segmentation.dtype}, shape {segmentation.shape}"
            raise InputError("segmentation", got, "whole numbers (Z, Y, X)")
        local = self.voxels - np.asarray(begin)
        inside = np.all((local >= 0) & (local < segmentation.shape), axis=1)
        found = segmentation[tuple(local[inside].T)]
        if found.dtype.kind == "i" and found.size and found.min() < 0:
            raise InputError("segmentation", f"the id {found.min()}", "ids from 0 on")
        self.segment[inside] = found
        self.seen |= inside

    def result(self) -> dict[str, Any]:
        """Return `erl`, `nerl` and the counts behind them.

        Raises:
            InputError: a node lies in none of the added blocks.
        """
        if not self.seen.all():
            node = int(np.flatnonzero(~self.seen)[0])
            got = f"{int((~self.seen).sum())} nodes outside, the first at {self.nodes[node].tolist()} nm"
            raise InputError("skeletons", got, "nodes (z, y, x) in nm inside the segmentation")
        length = np.linalg.norm(np.diff(self.nodes[self.edges], axis=1)[:, 0], axis=1)
        merged = self._merged()
        u, v = self.segment[self.edges].T
        followed = (u == v) & (u != 0) & ~np.isin(u, merged)
        whole = self._lengths(np.ones(length.size, bool), length, segments=False)
        total = math.fsum(whole)
        run = math.fsum(part * part for part in self._lengths(followed, length, segments=True))
        best = math.fsum(part * part for part in whole)
        missed = (u == 0) | (v == 0)
        return {
            "erl": run / total if total else math.nan,
            "nerl": run / best if best else math.nan,
            "best_erl": best / total if total else math.nan,
            "merge_threshold": self.merge_threshold,
            "skeletons": len(self.ids),
            "split_edges": int(((u != v) & ~missed).sum()),
            "missed_edges": int(missed.sum()),
            "merged_segments": merged.tolist(),
        }

    def _merged(self) -> Array:
        """Find the segments that hold enough nodes of two skeletons, or that must not touch any skeleton."""
        real = self.segment != 0
        pairs, nodes = np.unique(
            np.stack([self.segment[real], self.owner[real].astype(np.uint64)]), axis=1, return_counts=True
        )
        segment, skeletons = np.unique(pairs[0, nodes >= self.merge_threshold], return_counts=True)
        return np.union1d(segment[skeletons > 1], self.no_merge)

    def _lengths(self, keep: Array, length: Array, *, segments: bool) -> list[float]:
        """Sum the lengths of edges for each skeleton, or for each segment within each skeleton."""
        runs: dict[tuple[int, int], list[float]] = {}
        first = self.edges[keep, 0]
        names = self.segment[first] if segments else np.zeros(first.size, np.uint64)
        for key, part in zip(
            zip(self.owner[first].tolist(), names.tolist(), strict=True), length[keep].tolist(), strict=True
        ):
            runs.setdefault(key, []).append(part)
        return [math.fsum(parts) for parts in runs.values()]


def erl(
    skeletons: Skeletons,
    segmentation: Array,
    *,
    merge_threshold: int,
    voxel_size_nm: Sequence[float] = (1, 1, 1),
    offset: Sequence[int] = (0, 0, 0),
    no_merge: Iterable[int] = (),
) -> dict[str, Any]:
    """Expected run length of a segmentation along skeletons, in nm and relative to that of a perfect segmentation.

    An edge is correct if both its ends lie in the same segment and that segment is no merger. A segment is a merger if
    it holds at least `merge_threshold` nodes of each of two skeletons. With r(k, s) the length of the correct edges of
    skeleton k in segment s, and l(k) the length of skeleton k,

        erl = sum of r(k, s)^2 / sum of l(k)        nerl = sum of r(k, s)^2 / sum of l(k)^2

    Source: Januszewski et al. 2018, doi:10.1038/s41592-018-0049-4; the merge threshold: Wei et al. 2021 (AxonEM).

    Args:
        skeletons: {id: (nodes (N, 3) in nm, z, y, x; pairs of nodes (M, 2))}.
        segmentation: (Z, Y, X) ids, any integer type; 0 is no segment.
        merge_threshold: Number of nodes of a second skeleton that makes a segment a merger, 1 or more. The result
            repeats it.
        voxel_size_nm: Voxel size of the segmentation. A node lies in the voxel whose index is nearest to position /
            voxel size.
        offset: First voxel of the segmentation, in voxels from the origin of the node coordinates.
        no_merge: Segments that no skeleton may be merged with, such as one that contains the nucleus of another cell.

    Returns:
        `erl` and `best_erl` in nm, `nerl`, the `merge_threshold`, `skeletons`, `split_edges`, `missed_edges` (one end
        in no segment) and the list of `merged_segments`.

    Raises:
        InputError: a node lies outside the segmentation, a pair names no node, or an array has the wrong form.
    """
    score = Erl(
        skeletons, merge_threshold=merge_threshold, voxel_size_nm=voxel_size_nm, offset=offset, no_merge=no_merge
    )
    score.add(segmentation)
    return score.result()


def skeletons_of(
    truth: Array,
    *,
    voxel_size_nm: Sequence[float] = (1, 1, 1),
    offset: Sequence[int] = (0, 0, 0),
    min_voxels: int = 1000,
    scale: float = 1.5,
    constant_nm: float | None = None,
) -> dict[int, tuple[Array, Array]]:
    """Skeletonise true objects with TEASAR for `erl`; this takes about a third of a second per object.

    Args:
        truth: (Z, Y, X) ids; 0 is background.
        voxel_size_nm: Size of a voxel.
        offset: First voxel of the truth, in voxels; added to the nodes.
        min_voxels: Smaller objects get no skeleton.
        scale: Radius cleared around a path, as a multiple of the object's local radius.
        constant_nm: Added to that radius; by default ten voxels of the finest axis.

    Returns:
        {id: (nodes (N, 3) in nm, pairs of nodes (M, 2))}.

    Raises:
        InputError: bioimage-cpp is not installed.
    """
    try:
        from bioimage_cpp.skeleton import teasar_labels
    except ModuleNotFoundError as error:
        raise InputError("skeletons", "no package bioimage_cpp", "pip install bioimage-cpp") from error
    ids, inverse, counts = np.unique(truth, return_inverse=True, return_counts=True)
    kept = (counts >= min_voxels) & (ids != 0)
    dense = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)[inverse.reshape(truth.shape)]
    size = np.asarray(voxel_size_nm, float)
    constant = 10 * float(size.min()) if constant_nm is None else constant_nm
    found = teasar_labels(dense, spacing=tuple(size.tolist()), scale=scale, constant=constant)
    shift = np.asarray(offset) * size
    names = ids[kept].tolist()
    return {names[i - 1]: (nodes + shift, pairs.astype(np.int64)) for i, (nodes, pairs, _) in found.items()}


def _skeleton(name: int, skeleton: tuple[Array, Array]) -> tuple[Array, Array]:
    nodes, pairs = np.asarray(skeleton[0], float), np.asarray(skeleton[1])
    if nodes.ndim != 2 or nodes.shape[1] != 3:
        raise InputError(f"skeleton {name}", f"nodes of shape {nodes.shape}", "(N, 3)")
    pairs = pairs.reshape(-1, 2) if pairs.size == 0 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"skeleton {name}", f"pairs of shape {pairs.shape}", "(M, 2)")
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < len(nodes):
        raise InputError(f"skeleton {name}", f"pairs of nodes up to {pairs.max()}", f"indices below {len(nodes)}")
    return nodes, pairs.astype(np.int64)
