"""The panels of `figure.py`: truth and prediction of one section, by kind of task. See KINDS at the end."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.build import scores
from deepem.build.scores import Case, Ways
from deepem.segment import segment
from deepem.utils.palette import class_colours

Array = NDArray[Any]
MARK = (1.0, 0.72, 0.0)  # of structures that are marked on the grey image


@dataclass(frozen=True)
class Panel:
    """One section to show: grey or (Y, X, 3) in [0, 1], with a title and a line below it."""

    title: str
    note: str
    picture: Array


def marked(grey: Array, colours: Array, strength: Array) -> Array:
    """Colours (Y, X, 3) over a grey section, as strongly as `strength` (Y, X) says."""
    weight = np.clip(strength, 0, 1)[..., None] * 0.6
    return np.clip((1 - weight) * grey[..., None] + weight * colours, 0, 1)


def colour_of(names: Array) -> Array:
    """A bright colour for each id, (..., 3), the same for the same id; black for 0."""
    ids, at = np.unique(names, return_inverse=True)
    hues = (ids.astype(np.float64) * 0.61803398875) % 1  # golden ratio: neighbours in number are far apart in hue
    shades = 0.75 + 0.25 * ((ids.astype(np.float64) * 0.754877666) % 1)
    table = [colorsys.hsv_to_rgb(h, 0.85, v) if i else (0, 0, 0) for i, h, v in zip(ids, hues, shades, strict=True)]
    return np.array(table)[at].reshape(*names.shape, 3)


def named_after(found: Array, truth: Array) -> Array:
    """Segments renamed so that the largest part of every true object has its id, hence its colour.

    What a segment takes of other objects, and the other parts of an object, then stand out.
    """
    pairs, sizes = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1, return_counts=True)
    names: dict[int, int] = {0: 0}
    taken = {0}
    for (one, name), _ in sorted(zip(pairs.T.tolist(), sizes.tolist(), strict=True), key=lambda row: -row[1]):
        if one not in names and name not in taken:
            names[one] = name
            taken.add(name)
    free = int(truth.max()) + 1
    renamed = [names.get(one, free + i) for i, one in enumerate(np.unique(found).tolist())]
    return np.array(renamed)[np.unique(found, return_inverse=True)[1]].reshape(found.shape)


def affinity_panels(case: Case, grey: Array, z: int) -> list[Panel]:
    """True cells, affinities and segments of one section."""
    ids, affinity = case.truth(case.whole)[0], case.predicted(case.whole)
    measured = scores.score_affinity(case, Ways())
    best = min(measured["segmentation"].values(), key=lambda row: row["error"])
    found = named_after(
        segment(affinity, edges=case.edges, decoder=best["decoder"], threshold=best["threshold"]).astype(np.int64), ids
    )
    edges = " ".join("({},{},{})".format(*edge) for edge in case.edges[:3])
    cells = len(np.unique(ids[ids > 0]))
    precision = measured["cut_edges"]["average_precision"]
    note = f"adapted Rand error {best['error']:.3f} ({best['decoder']}, best threshold for this truth)"
    return [
        Panel("true cells", f"{cells} in the volume", marked(grey, colour_of(ids[z]), ids[z] > 0)),
        Panel(
            "predicted affinity",
            f"edges {edges}; of cut edges: average precision {precision:.2f}",
            np.moveaxis(affinity[:3, z], 0, -1),
        ),
        Panel("its segments", note, marked(grey, colour_of(found[z]), found[z] > 0)),
    ]


def binary_panels(case: Case, grey: Array, z: int) -> list[Panel]:
    """Truth and probability of the first channel of one section, marked on the image."""
    predicted = case.predicted(case.whole)
    truth = case.events(case.whole, len(predicted))
    row = scores.score_binary(case, Ways())["channels"]["0"]
    name = case.task.name.replace("_", " ")
    colour = np.broadcast_to(MARK, (*grey.shape, 3))
    return [
        Panel(f"true {name}", f"{row['share']:.1%} of the voxels", marked(grey, colour, truth[0, z] > 0)),
        Panel(f"predicted {name}", f"ROC AUC {row['auc']:.3f}", marked(grey, colour, predicted[0, z])),
    ]


def semantic_panels(case: Case, grey: Array, z: int) -> list[Panel]:
    """True and most probable classes of one section, in the colours of the classes on the image."""
    colours, predicted = class_colours(case.task.channels), case.predicted(case.whole)
    found, truth = predicted[0] if case.classes else predicted.argmax(0), case.truth(case.whole)
    measured = scores.score_semantic(case, Ways())
    name = case.task.name.replace("_", " ")
    return [
        Panel(
            f"true {name}", f"{len(measured['classes'])} classes", marked(grey, colours[truth[0, z]], truth[0, z] > 0)
        ),
        Panel(
            f"predicted {name}",
            f"mean IoU {measured['mean']['iou']:.3f}",
            marked(grey, colours[found[z].astype(int)], found[z] > 0),
        ),
    ]


def instance_panels(case: Case, grey: Array, z: int) -> list[Panel]:
    """True and predicted objects of one section."""
    measured = scores.score_instance(case, Ways())["instances"]
    true, found = case.truth(case.whole)[:, z].max(0), case.predicted(case.whole)[0, z].astype(np.int64)
    return [
        Panel("true objects", f"{measured['objects']} in the volume", marked(grey, colour_of(true), true > 0)),
        Panel("predicted objects", f"AP {measured['ap'][0.5]:.3f}", marked(grey, colour_of(found), found > 0)),
    ]


def no_share(case: Case) -> float:
    """Cells fill every section: none is richer in them."""
    return 0.0


def share_of_events(case: Case) -> Array:
    """The share of the true structures that each section has."""
    found = case.events(case.whole, case.task.channels).sum((0, 2, 3))
    return found / max(found.sum(), 1)


def share_of_classes(case: Case) -> Array:
    """The share of voxels of a class other than 0 that each section has."""
    found = (case.truth(case.whole)[0] > 0).sum((1, 2))
    return found / max(found.sum(), 1)


@dataclass(frozen=True)
class Kind:
    """How a kind of task is shown: its panels, and how much each section has to show."""

    panels: Callable[[Case, Array, int], list[Panel]]
    share: Callable[[Case], Array | float]


KINDS: dict[str, Kind] = {
    "affinity": Kind(panels=affinity_panels, share=no_share),
    "binary": Kind(panels=binary_panels, share=share_of_events),
    "semantic": Kind(panels=semantic_panels, share=share_of_classes),
    "instance": Kind(panels=instance_panels, share=share_of_classes),
}
"""One entry per kind of `deepem.tasks`."""
