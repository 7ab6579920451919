"""The panels of `figure.py`: truth and prediction of one section, by kind of task. See KINDS at the end."""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepem.tools import evaluate, scoring
from deepem.utils.palette import class_colours

MARK = (1.0, 0.72, 0.0)  # of structures that are marked on the grey image


@dataclass(frozen=True)
class Panel:
    """One section to show: grey or (Y, X, 3) in [0, 1], with a title and a line below it."""

    title: str
    note: str
    picture: scoring.Array


def marked(grey: scoring.Array, colours: scoring.Array, strength: scoring.Array) -> scoring.Array:
    """Colours (Y, X, 3) over a grey section, as strongly as `strength` (Y, X) says."""
    weight = np.clip(strength, 0, 1)[..., None] * 0.6
    return np.clip((1 - weight) * grey[..., None] + weight * colours, 0, 1)


def colour_of(names: scoring.Array) -> scoring.Array:
    """A bright colour for each id, (..., 3), the same for the same id; black for 0."""
    ids, at = np.unique(names, return_inverse=True)
    hues = (ids.astype(np.float64) * 0.61803398875) % 1  # golden ratio: neighbours in number are far apart in hue
    shades = 0.75 + 0.25 * ((ids.astype(np.float64) * 0.754877666) % 1)
    table = [colorsys.hsv_to_rgb(h, 0.85, v) if i else (0, 0, 0) for i, h, v in zip(ids, hues, shades, strict=True)]
    return np.array(table)[at].reshape(*names.shape, 3)


def named_after(found: scoring.Array, truth: scoring.Array) -> scoring.Array:
    """Segments renamed so that the largest part of every true object has its id, hence its colour.

    What a segment takes of other objects, and the other parts of an object, then stand out.
    """
    pairs, sizes = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1, return_counts=True)
    names: dict[int, int] = {0: 0}
    taken = {0}
    for (segment, name), _ in sorted(zip(pairs.T.tolist(), sizes.tolist(), strict=True), key=lambda row: -row[1]):
        if segment not in names and name not in taken:
            names[segment] = name
            taken.add(name)
    free = int(truth.max()) + 1
    renamed = [names.get(segment, free + i) for i, segment in enumerate(np.unique(found).tolist())]
    return np.array(renamed)[np.unique(found, return_inverse=True)[1]].reshape(found.shape)


def segmented(p: evaluate.Prediction, ids: scoring.Array) -> tuple[str, scoring.Array, float]:
    """What is made of affinities: the way, the segments, and the least adapted Rand error of all ways there are."""
    size = p.voxel_size_nm or (1, 1, 1)
    swept = {"components": list(scoring.by_components(p.array, p.edges, evaluate.COMPONENTS_AT, size))}
    if importlib.util.find_spec("waterz") and scoring.hold_nearest(p.edges):
        swept["waterz"] = scoring.by_waterz(p.array, p.edges, evaluate.WATERZ_AT)
    best = {way: evaluate.best(pairs, ids, None) for way, pairs in swept.items()}
    way = min(best, key=lambda name: np.nan_to_num(best[name]["are"], nan=9))
    return way, dict(swept[way])[best[way]["threshold"]], best[way]["are"]


def affinity_panels(
    p: evaluate.Prediction, grey: scoring.Array, truth: scoring.Array, label: str, z: int
) -> list[Panel]:
    """True cells, affinities and segments of one section."""
    ids = truth[0]
    way, found, error = segmented(p, ids)
    found = named_after(found, ids)
    ranked = [scoring.cut_edges(channel, edge, ids) for channel, edge in zip(p.array, p.edges, strict=True)]
    precision = np.mean([ranking.average_precision() for ranking in ranked])
    edges = " ".join("({},{},{})".format(*edge) for edge in p.edges[:3])
    cells = len(np.unique(ids[ids > 0]))
    return [
        Panel("true cells", f"{cells} in the volume", marked(grey, colour_of(ids[z]), ids[z] > 0)),
        Panel("predicted affinity", f"red, green, blue: edges {edges}", np.moveaxis(p.array[:3, z], 0, -1)),
        Panel(
            "its segments",
            f"cut edges: average precision {precision:.2f};  adapted Rand error {error:.3f} ({way})",
            marked(grey, colour_of(found[z]), found[z] > 0),
        ),
    ]


def binary_panels(p: evaluate.Prediction, grey: scoring.Array, truth: scoring.Array, label: str, z: int) -> list[Panel]:
    """Truth and probability of the first channel of one section, marked on the image."""
    truth = evaluate.events(p, truth, label)
    ranking = scoring.Ranking.of(p.array[0], truth[0] > 0)
    name = p.task.name.replace("_", " ")
    colour = np.broadcast_to(MARK, (*grey.shape, 3))
    return [
        Panel(f"true {name}", f"{ranking.share:.1%} of the voxels", marked(grey, colour, truth[0, z] > 0)),
        Panel(f"predicted {name}", f"ROC AUC {ranking.auc():.3f}", marked(grey, colour, p.array[0, z])),
    ]


def semantic_panels(
    p: evaluate.Prediction, grey: scoring.Array, truth: scoring.Array, label: str, z: int
) -> list[Panel]:
    """True and most probable classes of one section, in the colours of the classes on the image."""
    colours, found = class_colours(p.task.channels), evaluate.classes_of(p)
    measured = evaluate.score_semantic(p, truth, label, None, "none")
    name = p.task.name.replace("_", " ")
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


def no_share(p: evaluate.Prediction, truth: scoring.Array, label: str) -> float:
    """Cells fill every section: none is richer in them."""
    return 0.0


def share_of_events(p: evaluate.Prediction, truth: scoring.Array, label: str) -> scoring.Array:
    """The share of the true structures that each section has."""
    found = evaluate.events(p, truth, label).sum((0, 2, 3))
    return found / max(found.sum(), 1)


def share_of_classes(p: evaluate.Prediction, truth: scoring.Array, label: str) -> scoring.Array:
    """The share of voxels of a class other than 0 that each section has."""
    found = (truth[0] > 0).sum((1, 2))
    return found / max(found.sum(), 1)


@dataclass(frozen=True)
class Kind:
    """How a kind of task is shown: its panels, and how much each section has to show; both from truth and its label."""

    panels: Callable[[evaluate.Prediction, scoring.Array, scoring.Array, str, int], list[Panel]]
    share: Callable[[evaluate.Prediction, scoring.Array, str], scoring.Array | float]


KINDS: dict[str, Kind] = {
    "affinity": Kind(panels=affinity_panels, share=no_share),
    "binary": Kind(panels=binary_panels, share=share_of_events),
    "semantic": Kind(panels=semantic_panels, share=share_of_classes),
}
"""One entry per kind of `deepem.tasks`."""
