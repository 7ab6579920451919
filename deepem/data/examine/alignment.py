"""Check whether a label is aligned with its image, or would fit better transposed, mirrored, shifted or scaled.

At edges between instances or classes, an image is darker or brighter (a membrane) or steeper (a rim). The fit of a
label is the share of the image's variation that its edges explain. A correct label fits better as it is than after any
transformation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Floats = NDArray[np.float32]

SIDE = 64
"""Side of the central cube of a volume that is examined."""

LONG = 192
"""Side in y and x of the box in which a label is shifted."""

CLEAR = 1.35
"""A transformed label must explain this many times as much as the label as it is."""

ALONE = 3.0
"""It must also explain this many times as much as any other transformation, which excludes fits by chance."""

LEAST = 0.005
"""It must also explain at least this share of the image's variation."""

AXES = "zyx"


@dataclass(frozen=True)
class Misfit:
    """A transformation of the label that explains the image better.

    Attributes:
        fault: ``axes``, ``mirrored``, ``shifted`` or ``scaled``.
        what: The transformation in words.
        given: Share of the variation that the label explains as it is.
        better: Share that the transformed label explains.
    """

    fault: str
    what: str
    given: float
    better: float


def edges_of(label: Array) -> Floats:
    """Return 1 where a voxel's label differs from a neighbour's in y or x, and in one-voxel gaps between labels."""
    edge = np.zeros(label.shape, np.float32)
    for axis in (1, 2):
        low: Any = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        high: Any = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        differ = label[low] != label[high]
        edge[low] = np.maximum(edge[low], differ)
        edge[high] = np.maximum(edge[high], differ)
    return edge


def features_of(image: Array) -> list[Floats]:
    """Return the image features that edges affect: grey values minus their local mean, and the gradient's magnitude."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (0, 1, 1))
    wide = ndimage.gaussian_filter(smooth, (0, 6, 6))
    steep = np.hypot(ndimage.sobel(smooth, 1), ndimage.sobel(smooth, 2))
    return [_normal(smooth - wide), _normal(steep)]


def fit(features: list[Floats], edge: Floats) -> float:
    """Return the share of the variation of an image's features that edges (of the same shape) explain."""
    normal = _normal(edge)
    return float(sum(np.mean(feature * normal, dtype=np.float64) ** 2 for feature in features))


def explained(image: Array, label: Array) -> tuple[float, float, float]:
    """Judge whether a label's edges have anything to do with the image, in the central box.

    Returns:
        The share of edge voxels; the share of the image's variation that they explain; and the largest share that they
        explain by chance, of the label mirrored along any axes.
    """
    size = tuple(min(n, m) for n, m in zip(image.shape, (SIDE, LONG, LONG), strict=True))
    features, edge = features_of(_middle(image, size)), edges_of(_middle(label, size))
    mirrored = (tuple(slice(None, None, f) for f in flips) for flips in itertools.product((1, -1), repeat=3))
    given, *chance = (fit(features, edge[where]) for where in mirrored)
    return float(edge.mean()), given, max(chance)


def misfits(image: Array, label: Array) -> list[Misfit]:
    """Return transformations of a label (Z, Y, X) that explain the image clearly better, the best of each kind."""
    side, square = min(SIDE, *image.shape), min(LONG, *image.shape[1:])
    found = _best(_turned(image, label, (side, side, side), keeps_z=False), ALONE)
    found += _best(_turned(image, label, (min(SIDE, image.shape[0]), square, square), keeps_z=True), ALONE)
    found += _best(_moved(image, label), ALONE / 2) + _best(_scaled(image, label), 1)
    return sorted(found, key=lambda misfit: -misfit.better)


def _best(ways: Iterable[Misfit], alone: float) -> list[Misfit]:
    """Return the best transformation if it is clearly better than the label as it is, and than the second best."""
    first, *others = sorted(ways, key=lambda way: -way.better) or [Misfit("", "", 0, 0)]
    clear = first.better > CLEAR * first.given and first.better - first.given > LEAST
    return [first] if clear and all(first.better > alone * other.better for other in others[:1]) else []


def _turned(image: Array, label: Array, size: tuple[int, ...], keeps_z: bool) -> Iterator[Misfit]:
    """Try the label with axes swapped or mirrored, within a central box."""
    if min(size) < 8:
        return
    features, middle = features_of(_middle(image, size)), _middle(label, size)
    given = fit(features, edges_of(middle))
    for axes, flips in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        if (axes, flips) != ((0, 1, 2), (1, 1, 1)) and (axes[0] == 0) == keeps_z:
            turned = middle.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
            fault = "mirrored" if axes == (0, 1, 2) else "axes"
            yield Misfit(fault, _words(axes, flips), given, fit(features, edges_of(turned)))


def _words(axes: tuple[int, ...], flips: tuple[int, ...]) -> str:
    mirrored = [AXES[a] for a, f in enumerate(flips) if f < 0]
    parts = [] if axes == (0, 1, 2) else [f"its axes are {', '.join(AXES[axes.index(a)] for a in range(3))}"]
    if mirrored:
        parts.append(f"{' and '.join(mirrored)} reversed")
    return ", ".join(parts)


def _moved(image: Array, label: Array) -> Iterator[Misfit]:
    """Try the label shifted by up to a quarter of the box; a correlation tests all shifts at once."""
    size = tuple(min(n, m) for n, m in zip(image.shape, (SIDE, LONG, LONG), strict=True))
    features, edge = features_of(_middle(image, size)), _normal(edges_of(_middle(label, size)))
    spectrum = np.conj(np.fft.rfftn(edge))
    explained = sum(
        (np.fft.irfftn(np.fft.rfftn(feature) * spectrum, s=edge.shape, axes=(0, 1, 2)) / edge.size) ** 2
        for feature in features
    )
    given = float(explained[0, 0, 0])  # type: ignore[index]
    reach = [n // 4 for n in size]
    at = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n).round().astype(int) for n in size], indexing="ij"))
    near = np.abs(at).max(0) <= 1
    far = (np.abs(at) > np.reshape(reach, (3, 1, 1, 1))).any(0)
    explained = np.where(near | far, 0, explained)
    for _ in range(2):  # the best shift, and the best shift away from it
        best = np.unravel_index(int(np.argmax(explained)), edge.shape)
        shift = tuple(int(a[best]) for a in at)
        yield Misfit("shifted", f"moved by {shift} (z, y, x) voxels", given, float(explained[best]))
        around = np.abs(at - np.reshape(shift, (3, 1, 1, 1))) <= np.reshape(
            (max(size[0] // 4, 2), 16, 16), (3, 1, 1, 1)
        )
        explained = np.where(around.all(0), 0, explained)


def _scaled(image: Array, label: Array) -> Iterator[Misfit]:
    """Try the label at another resolution, from the first voxel on, cropped or padded to the size of the image."""
    limits = (SIDE, LONG, LONG)
    for factor in ((1, 2, 2), (2, 2, 2)):
        steps: Any = tuple(slice(None, f * m, f) for f, m in zip(factor, limits, strict=True))
        few: Any = tuple(slice(0, -(-min(n, m) // f)) for n, f, m in zip(label.shape, factor, limits, strict=True))
        coarser = label[few]
        for axis, f in enumerate(factor):
            coarser = coarser.repeat(f, axis)
        for what, other in (("finer", label[steps]), ("coarser", coarser)):
            part: Any = tuple(slice(0, n) for n in np.minimum(other.shape, image.shape))
            if min(other[part].shape[1:]) < 16:
                continue
            features = features_of(image[part])
            words = f"{what} than the image, {factor} (z, y, x) times"
            yield Misfit("scaled", words, fit(features, edges_of(label[part])), fit(features, edges_of(other[part])))


def _middle(array: Array, size: tuple[int, ...]) -> Array:
    return array[tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(array.shape, size, strict=True))]


def _normal(array: Floats) -> Floats:
    """Normalise to mean 0 and standard deviation 1; a constant array becomes 0."""
    out = array - array.mean(dtype=np.float64)
    spread = float(out.std(dtype=np.float64))
    return np.asarray(out / spread if spread > 1e-12 else out * 0, np.float32)
