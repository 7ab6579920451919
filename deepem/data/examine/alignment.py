"""Whether a label lies on its image as it is given, or would fit better turned, mirrored, moved or scaled.

Where instances or classes meet, an image changes: it is darker or brighter there (a membrane), or steeper (a rim). How
well a label lies on an image is how much of the image's variation its edges explain. A label that is right explains
more as it is than in any other way of laying it down.
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
"""Of the cube in the middle of a volume that is looked at."""

LONG = 192
"""Of the box in which a label is moved, along y and x."""

CLEAR = 1.35
"""Another way of laying the label down must explain so many times as much."""

ALONE = 3.0
"""And so many times as much as any further way: what explains a little by chance does so in many ways."""

LEAST = 0.005
"""And at least this share of the image's variation."""

AXES = "zyx"


@dataclass(frozen=True)
class Misfit:
    """A way of laying the label down that explains the image better.

    Attributes:
        fault: ``axes``, ``mirrored``, ``shifted`` or ``scaled``.
        what: In words.
        given: What the label explains as it is.
        better: What it would explain.
    """

    fault: str
    what: str
    given: float
    better: float


def edges_of(label: Array) -> Floats:
    """1 where a voxel's label differs from that of a neighbour in y or x, and in gaps of one voxel between labels."""
    edge = np.zeros(label.shape, np.float32)
    for axis in (1, 2):
        low: Any = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        high: Any = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        differ = label[low] != label[high]
        edge[low] = np.maximum(edge[low], differ)
        edge[high] = np.maximum(edge[high], differ)
    return edge


def features_of(image: Array) -> list[Floats]:
    """What an image shows at edges: its grey values less their surroundings, and how steep they are."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (0, 1, 1))
    wide = ndimage.gaussian_filter(smooth, (0, 6, 6))
    steep = np.hypot(ndimage.sobel(smooth, 1), ndimage.sobel(smooth, 2))
    return [_normal(smooth - wide), _normal(steep)]


def fit(features: list[Floats], edge: Floats) -> float:
    """The share of the variation of an image's features that edges explain, both of one shape."""
    normal = _normal(edge)
    return float(sum(np.mean(feature * normal, dtype=np.float64) ** 2 for feature in features))


def misfits(image: Array, label: Array) -> list[Misfit]:
    """Ways of laying a label (Z, Y, X) down that explain the image (Z, Y, X) clearly better; the best of each kind."""
    side, square = min(SIDE, *image.shape), min(LONG, *image.shape[1:])
    found = _best(_turned(image, label, (side, side, side), keeps_z=False), ALONE)
    found += _best(_turned(image, label, (min(SIDE, image.shape[0]), square, square), keeps_z=True), ALONE)
    found += _best(_moved(image, label), ALONE / 2) + _best(_scaled(image, label), 1)
    return sorted(found, key=lambda misfit: -misfit.better)


def _best(ways: Iterable[Misfit], alone: float) -> list[Misfit]:
    """The best way if it is clearly better than the label as it is, and than the next best: chance favours several."""
    first, *others = sorted(ways, key=lambda way: -way.better) or [Misfit("", "", 0, 0)]
    clear = first.better > CLEAR * first.given and first.better - first.given > LEAST
    return [first] if clear and all(first.better > alone * other.better for other in others[:1]) else []


def _turned(image: Array, label: Array, size: tuple[int, ...], keeps_z: bool) -> Iterator[Misfit]:
    """The label with axes exchanged or mirrored, within a box in the middle."""
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
    """The label moved by up to a quarter of the box, found from the correlation at all shifts at once."""
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
    for _ in range(2):  # the best place, and the best of those that lie apart from it
        best = np.unravel_index(int(np.argmax(explained)), edge.shape)
        shift = tuple(int(a[best]) for a in at)
        yield Misfit("shifted", f"moved by {shift} (z, y, x) voxels", given, float(explained[best]))
        around = np.abs(at - np.reshape(shift, (3, 1, 1, 1))) <= np.reshape(
            (max(size[0] // 4, 2), 16, 16), (3, 1, 1, 1)
        )
        explained = np.where(around.all(0), 0, explained)


def _scaled(image: Array, label: Array) -> Iterator[Misfit]:
    """The label of another resolution, cut or padded to the size of the image: laid down from the first voxel."""
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
    """Mean 0, deviation 1; 0 throughout where there is none."""
    out = array - array.mean(dtype=np.float64)
    spread = float(out.std(dtype=np.float64))
    return np.asarray(out / spread if spread > 1e-12 else out * 0, np.float32)
