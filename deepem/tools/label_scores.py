"""Score a label volume of neurons or single objects against its truth, block by block.

METRICS has one line per score. Segmentation and truth are read once for all requested scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.evaluate import (
    AdaptedRand,
    Boxes,
    Cremi,
    Detections,
    Erl,
    Instances,
    Objects,
    OracleMerge,
    Overlaps,
    Voi,
    skeletons_of,
)
from deepem.io.volume import VoxelSize
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles, Vec3

Array = NDArray[Any]
Read = Callable[[Box], Array]
Figures = dict[str, Any]

BLOCK: Vec3 = (64, 256, 256)
FROM_TRUTH = "truth"


@dataclass(frozen=True)
class LabelCase:
    """A label volume with its truth, read in boxes (Z, Y, X).

    Attributes:
        file: Its path.
        size: (z, y, x) voxels.
        offset: Position of its first voxel in the image.
        voxel_size_nm: (z, y, x), or None if unknown.
        labels: Its ids.
        truth: The true ids.
        mask: Which voxels count, or None for all.
        fragments: The fragments that it was agglomerated from, or None.
        scores: The score of each object by id, or None if there are none.
    """

    file: str
    size: Vec3
    offset: Vec3
    voxel_size_nm: VoxelSize | None
    labels: Read
    truth: Read
    mask: Read | None = None
    fragments: Read | None = None
    scores: Mapping[int, float] | None = None

    @property
    def whole(self) -> Box:
        """Box of the whole volume."""
        return Box((0, 0, 0), self.size)

    def blocks(self) -> Iterator[tuple[Box, Array, Array | None]]:
        """Yield each box with its true ids and its mask."""
        for box in Tiles(self.whole, BLOCK):
            yield box, self.truth(box), None if self.mask is None else self.mask(box)


@dataclass(frozen=True)
class Asked:
    """How to score label volumes.

    Attributes:
        metrics: Names in METRICS.
        top: Rows of the tables of the worst splits and merges.
        skeletons: A JSON file, or `truth` to make skeletons from the true labels; for `erl`.
        merge_threshold: A segment with this many nodes of a second skeleton is a merger; for `erl`.
        distance_nm: Detections match by the distance of their centroids; for `detections`.
        min_overlap: Without a distance, detections match by this overlap in voxels.
    """

    metrics: Sequence[str]
    top: int = 10
    skeletons: str = FROM_TRUTH
    merge_threshold: int = 2
    distance_nm: float | None = None
    min_overlap: int = 1


def score_labels(case: LabelCase, asked: Asked) -> Figures:
    """Return all requested scores of one label volume.

    Raises:
        InputError: a score lacks something it needs.
    """
    overlaps = Overlaps(places=True)
    scores = {name: METRICS[name].make(case, asked, overlaps) for name in asked.metrics}
    for box, truth, mask in case.blocks():
        labels = case.labels(box)
        overlaps.add(labels, truth, mask=mask, begin=box.begin)
        for name, score in scores.items():
            METRICS[name].add(score, case, box, labels, truth, mask)
    return {name: METRICS[name].result(score) for name, score in scores.items()}


def read_skeletons(file: str) -> dict[int, tuple[Array, Array]]:
    """Read skeletons from JSON: {id: [[[z, y, x] in nm, ...], [[node, node], ...]]}.

    Raises:
        InputError: the file is missing or has another content.
    """
    try:
        held = json.loads(Path(file).read_text())
        return {
            int(name): (np.asarray(nodes, float), np.asarray(pairs, np.int64).reshape(-1, 2))
            for name, (nodes, pairs) in held.items()
        }
    except OSError as error:
        raise InputError("--skeletons", f"{file}: {error.strerror or error}", "a file that can be read") from error
    except (ValueError, TypeError, AttributeError) as error:
        wants = "{id: [[[z, y, x] in nm, ...], [[node, node], ...]]}"
        raise InputError("--skeletons", f"{file}: {error}", wants) from error


def _erl(case: LabelCase, asked: Asked, overlaps: Overlaps) -> Erl:
    size = case.voxel_size_nm or (1.0, 1.0, 1.0)
    if asked.skeletons == FROM_TRUTH:
        found: Mapping[int, tuple[Array, Array]] = skeletons_of(
            case.truth(case.whole), voxel_size_nm=size, offset=case.offset
        )
    else:
        found = read_skeletons(asked.skeletons)
    return Erl(found, merge_threshold=asked.merge_threshold, voxel_size_nm=size, offset=case.offset)


def _detections(case: LabelCase, asked: Asked, overlaps: Overlaps) -> Detections:
    size = case.voxel_size_nm or (1.0, 1.0, 1.0)
    return Detections(distance_nm=asked.distance_nm, min_overlap=asked.min_overlap, voxel_size_nm=size)


def _oracle(case: LabelCase, asked: Asked, overlaps: Overlaps) -> OracleMerge:
    if case.fragments is None:
        raise InputError("--fragments", "nothing", "the fragments whose best agglomeration is asked for")
    return OracleMerge()


Add = Callable[[Any, LabelCase, Box, Array, Array, Array | None], None]


def _shared(score: Any, case: LabelCase, box: Box, labels: Array, truth: Array, mask: Array | None) -> None:
    """Add nothing: these scores use the table of overlaps, which is filled once for all of them."""


def _own(score: Any, case: LabelCase, box: Box, labels: Array, truth: Array, mask: Array | None) -> None:
    score.add(labels, truth, mask=mask, begin=box.begin)


def _of_objects(score: Instances, case: LabelCase, box: Box, labels: Array, truth: Array, mask: Array | None) -> None:
    first = box.begin == (0, 0, 0)  # the scores of all objects are handed over once
    score.add(labels, truth, mask=mask, begin=box.begin, scores=case.scores if first else None)


def _at_nodes(score: Any, case: LabelCase, box: Box, labels: Array, truth: Array, mask: Array | None) -> None:
    score.add(labels, begin=box.begin)


def _of_fragments(score: Any, case: LabelCase, box: Box, labels: Array, truth: Array, mask: Array | None) -> None:
    assert case.fragments is not None
    score.add(case.fragments(box), truth, mask=mask)


def _result(score: Any) -> Figures:
    found: Figures = score.result()
    return found


def _ranked(score: Instances) -> Figures:
    found = score.result()
    return {**found, "ranked": score.curves()} if "ap_ranked" in found else found


def _best_scores(score: OracleMerge) -> Figures:
    return score.scores()


@dataclass(frozen=True)
class Metric:
    """A score of label volumes.

    Attributes:
        make: Creates the object that accumulates blocks.
        add: Adds a block to that object.
        result: Returns the figures after the last block.
    """

    make: Callable[[LabelCase, Asked, Overlaps], Any]
    add: Add = _shared
    result: Callable[[Any], Figures] = _result


METRICS: dict[str, Metric] = {
    "adapted_rand": Metric(lambda case, asked, overlaps: AdaptedRand(overlaps)),
    "voi": Metric(lambda case, asked, overlaps: Voi(overlaps)),
    "cremi": Metric(lambda case, asked, overlaps: Cremi(overlaps)),
    "objects": Metric(lambda case, asked, overlaps: Objects(asked.top, overlaps)),
    "oracle": Metric(_oracle, _of_fragments, _best_scores),
    "erl": Metric(_erl, _at_nodes),
    "instances": Metric(lambda case, asked, overlaps: Instances(), _of_objects, _ranked),
    "boxes": Metric(lambda case, asked, overlaps: Boxes(), _of_objects, _ranked),
    "detections": Metric(_detections, _own),
}

OF_SEGMENTS = ("adapted_rand", "voi", "cremi", "objects")
"""Default scores of a segmentation."""
OF_OBJECTS = ("instances", "boxes", "detections")
"""Default scores of single objects, such as nuclei or synapses."""
