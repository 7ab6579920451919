"""Find faults of a whole volume: image, labels, masks, and how well they are aligned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.examine import alignment
from deepem.data.examine.finding import Finding
from deepem.data.examine.image import image_findings
from deepem.data.examine.label import id_findings, type_findings
from deepem.io.lazy import Lazy, as_lazy
from deepem.utils.geometry import Box, vec3

Array = NDArray[Any]

MOST = (256, 640, 640)
"""Size of the central box that is examined in a volume on disk."""

DARK, APART = 2.0, 2.5
"""Volumes differ in contrast if means differ by this many standard deviations, or deviations by this factor."""

EDGES = 0.01
"""A label must have this share of edges for its relation to the image to be judged."""

UNRELATED = 0.01
"""Ids whose edges explain this share of the image are its own. Of four real volumes, they explained 0.017 or more."""

CHANCE = 3.0
"""Ids with a smaller share are its own too if the share is this many times what mirrored ids explain by chance."""

RARE = 0.1
"""Sections without labels count as faults if they are at most this share of those with labels."""

SEEN = 0.03
"""If grey values correlate less than this with label edges, the image has no clear polarity."""


def part_of(array: Any) -> Array:
    """Return the first channel (Z, Y, X) of an array, or its central box if the array is on disk."""
    lazy = as_lazy(array)
    if lazy is None:
        held: Array = np.asarray(array)
        return held if held.ndim == 3 else held[0]
    size = vec3(lazy.shape[-3:])
    begin = vec3(max((n - m) // 2, 0) for n, m in zip(size, MOST, strict=True))
    box = Box(begin, vec3(min(b + m, n) for b, m, n in zip(begin, MOST, size, strict=True)))
    part: Array = lazy.read(box)[0]
    return part


def voxel_size_of(array: Any) -> tuple[float, ...] | None:
    """Return the voxel size (z, y, x) in nanometres, if the file has it."""
    attributes = array.attributes if isinstance(array, Lazy) else {}
    told = attributes.get("voxel_size_nm", attributes.get("resolution"))
    sizes = () if told is None else tuple(float(n) for n in np.ravel(told))
    return sizes if len(sizes) == 3 else None


def volume_findings(arrays: Mapping[str, Any], labels: Sequence[str], ids: Collection[str]) -> list[Finding]:
    """Return the faults of one volume's arrays, whose keys are those of a dataset module.

    Args:
        arrays: The image, labels and masks.
        labels: The labels that are trained on.
        ids: The labels that hold instance ids.
    """
    image = arrays["img"]
    seen = part_of(image)
    found = [one.at("img") for one in [*image_findings(seen, voxel_size_of(image)), *absent(image)]]
    for key in labels:
        if arrays.get(key) is None:
            continue
        mine = [*shape_findings(image, arrays[key]), *absent(arrays[key])]
        label = part_of(arrays[key])
        mine += (faults := type_findings(label, key in ids))
        if not faults and key in ids:
            mine += id_findings(label) + gap_findings(label, masks_of(arrays, key))
        elif not faults and label.min() > 0:
            mine.append(Finding("no zero", "the label is nowhere 0: no voxel is background", "another file, or a mask"))
        if not faults and label.shape == seen.shape and not any(one.code in CANNOT_BE_LAID for one in found):
            mine += alignment_findings(seen, label) or (unrelated_findings(seen, label) if key in ids else [])
        found += [one.at(key) for one in mine]
    masks = [key for key in arrays if key.startswith("msk") or key.endswith("_msk")]
    for key in masks:
        if arrays.get(key) is not None:
            found += [one.at(key) for one in mask_findings(image, arrays[key])]
    return found + overlap_findings(arrays)


CANNOT_BE_LAID = {"wrapped", "nan"}
"""Faults of an image that rule out comparing it with a label."""


MISPLACED = {*CANNOT_BE_LAID, "axes", "mirrored", "shifted", "scaled", "shape", "unrelated"}
"""Faults that rule out telling from a label whether its edges are dark or bright."""


def alignment_findings(image: Array, label: Array) -> list[Finding]:
    """Check whether a transformed label would fit the image better; report the clearest case."""
    remedies = {
        "axes": "store the label with the axes of the image",
        "mirrored": "reverse the label, or the image",
        "shifted": "look at the offsets of the two files",
        "scaled": "store the label at the resolution of the image",
    }
    return [
        Finding(way.fault, f"would lie better on the image if {_as_words(way)} ({way.given:.1%} explained, then "
                f"{way.better:.1%})", remedies[way.fault])
        for way in alignment.misfits(image, label)[:1]
    ]  # fmt: skip


def unrelated_findings(image: Array, label: Array) -> list[Finding]:
    """Find instance ids whose edges explain no more of the image than they would by chance."""
    share, explained, chance = alignment.explained(image, label)
    if share < EDGES or explained >= UNRELATED or explained > CHANCE * chance:
        return []
    what = f"its edges explain {explained:.2%} of the image, and {chance:.2%} when mirrored: no more than by chance"
    return [Finding("unrelated", what, "look at the picture: another volume's label, or laid far off")]


def masks_of(arrays: Mapping[str, Any], key: str) -> list[Array]:
    """Return the masks that say where a label counts."""
    names = [f"{key}_msk"] if arrays.get(f"{key}_msk") is not None else ["msk", "msk_train", "msk_val"]
    return [part_of(arrays[name]) for name in names if arrays.get(name) is not None]


def gap_findings(label: Array, masks: Sequence[Array]) -> list[Finding]:
    """Find single sections without any label between sections with labels, unless all masks exclude them."""
    there = np.asarray(label.any((1, 2)))
    inside = np.flatnonzero(there)
    counts = np.ones(len(label), bool)
    if masks and all(mask.shape == label.shape for mask in masks):
        counts = np.logical_or.reduce([mask.any((1, 2)) for mask in masks])
    gaps = [z for z in range(inside[0], inside[-1]) if not there[z] and counts[z]] if len(inside) else []
    if not gaps or len(gaps) > RARE * len(inside):
        return []
    shown = ", ".join(map(str, gaps[:5])) + (", ..." if len(gaps) > 5 else "")
    what = f"no voxel has a label in {len(gaps)} of the sections ({shown}), between sections with labels"
    return [Finding("empty section", what, "label them, or mask them out: 0 is background")]


def _as_words(way: alignment.Misfit) -> str:
    return f"taken as {way.what}" if way.fault in ("scaled", "axes") else way.what


def shape_findings(image: Any, label: Any) -> list[Finding]:
    """Explain a label of another shape: transposed axes or another resolution."""
    mine, other = tuple(image.shape[-3:]), tuple(label.shape[-3:])
    if mine == other:
        return []
    if sorted(mine) == sorted(other):
        order = ", ".join("zyx"[mine.index(n)] for n in other)
        return [Finding("axes", f"shape {other}, the image's is {mine}: axes {order}?", "store the label as (Z, Y, X)")]
    factors = {a / b for a, b in zip(mine, other, strict=True)}
    if all(f == round(f) or 1 / f == round(1 / f) for f in factors):
        ratio = tuple(f"{a / b:g}" for a, b in zip(mine, other, strict=True))
        what = f"shape {other}, the image's is {mine}: {', '.join(ratio)} (z, y, x) image voxels per voxel"
        return [Finding("scaled", what, "store the label at the resolution of the image, or give label_factor")]
    return [Finding("shape", f"shape {other}, the image's is {mine}", "arrays of one size: cut or pad one of them")]


def mask_findings(image: Any, mask: Any) -> list[Finding]:
    """Find masks that cover nothing or have another shape."""
    found = shape_findings(image, mask)
    part = part_of(mask)
    covered = as_lazy(mask)
    if not part.any() and (covered is None or not _marked(covered)):
        found.append(Finding("empty mask", "the mask covers nothing", "a mask with voxels that are not 0"))
    return found


def _marked(lazy: Lazy) -> int:
    from deepem.data.scan import facts_of

    lazy.known = lazy.known or facts_of(lazy)
    return int(lazy.known.marked)


def absent(array: Any) -> list[Finding]:
    """Find missing chunks in an array on disk, by one scan of the whole array."""
    if not isinstance(array, Lazy) or array.sparse:
        return []
    _marked(array)
    if not array.known.absent:
        return []
    what = f"{array.known.absent} chunks are absent and read as the fill value, such as {array.known.lacking}"
    return [Finding("chunks missing", what, "copy the volume again, or mask what is lost")]


def overlap_findings(arrays: Mapping[str, Any]) -> list[Finding]:
    """Find training and evaluation masks that overlap."""
    both = [arrays.get("msk_train"), arrays.get("msk_val")]
    if any(mask is None for mask in both):
        return []
    first, second = (part_of(mask) for mask in both)
    if first.shape != second.shape or not (shared := int(np.count_nonzero((first > 0) & (second > 0)))):
        return []
    what = f"msk_train and msk_val share {shared} voxels"
    return [Finding("train and val overlap", what, "masks that have no voxel in common", "msk_val")]


def overlapping(one: Any, other: Any) -> bool:
    """Whether two images hold the same voxels: same file, same memory, or equal values."""
    a, b = as_lazy(one), as_lazy(other)
    if a is not None and b is not None:
        return a.path == b.path and a.window.intersect(b.window) is not None
    if a is not None or b is not None:
        return False
    held, more = np.asarray(one), np.asarray(other)
    return np.shares_memory(held, more) or (held.shape == more.shape and np.array_equal(held, more))


def between(volumes: Mapping[str, tuple[Array, Array | None]]) -> list[Finding]:
    """Find differences between the volumes of a run; each has a name, an image and, optionally, a label of ids."""
    found = []
    stats = {name: (float(image.mean()), float(image.std())) for name, (image, _) in volumes.items()}
    if len({image.dtype for image, _ in volumes.values()}) > 1:
        kinds = ", ".join(f"{name} {image.dtype}" for name, (image, _) in volumes.items())
        found.append(Finding("contrast jump", f"images of several types: {kinds}", "one type", ", ".join(volumes)))
    signs = {name: sign for name, pair in volumes.items() if (sign := sign_of(*pair))}
    plus = [name for name, sign in signs.items() if sign > 0]
    minus = [name for name, sign in signs.items() if sign < 0]
    inverted = set(minus if len(minus) < len(plus) else plus) if plus and minus else set()
    if inverted and len(plus) == len(minus):
        inverted = {*plus, *minus}
        what = f"{', '.join(plus)} brighter and {', '.join(minus)} darker at the edges of the labels"
        where = ", ".join(f"{name} img" for name in signs)
        found.append(Finding("inverted", f"{what}: the data do not tell which are inverted", "255 less these", where))
    else:
        for name in sorted(inverted):
            what = f"brighter where the others are darker at the edges of {len(signs)} labels: an inverted image"
            found.append(Finding("inverted", what, "255 less the image", f"{name} img"))
    right = [s for n, s in stats.items() if n not in inverted]
    if not right:
        return found
    middle, spread = (float(np.median([s[i] for s in right])) for i in (0, 1))
    for name, (mean, deviation) in stats.items():
        ratio = max(deviation, spread) / max(min(deviation, spread), 1e-9)
        if name not in inverted and (abs(mean - middle) > DARK * max(spread, deviation) or ratio > APART):
            what = f"mean {mean:.3g}, deviation {deviation:.3g}; of the run's volumes {middle:.3g} and {spread:.3g}"
            found.append(Finding("contrast jump", what, "the same normalisation for all volumes", f"{name} img"))
    return found


def sign_of(image: Array, label: Array | None) -> int:
    """Return 1 if the image is brighter where labels meet, -1 if it is darker, and 0 if neither is clear."""
    if label is None or label.shape != image.shape or label.dtype.kind not in "biu":
        return 0
    size = tuple(min(n, m) for n, m in zip(image.shape, (16, 256, 256), strict=True))
    middle: Any = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(image.shape, size, strict=True))
    grey, edge = alignment.features_of(image[middle])[0], alignment.edges_of(label[middle])
    spread = float(edge.std())
    related = float(np.mean(grey * (edge - edge.mean()))) / spread if spread else 0.0
    return 0 if abs(related) < SEEN else 1 if related > 0 else -1
