"""Train on a torch Dataset of (image, target) items, as instance segmentation networks use them.

``image`` is (C, Z, Y, X), float in [0, 1] or uint8. ``target`` holds ``labels`` (N,), ``masks`` (N, Z, Y, X) and
``boxes``; boxes are recomputed from the masks after augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.volume import Volume
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Array = NDArray[Any]
Volumes = Mapping[str, Mapping[str, Any]]


class ItemSampler:
    """Draw random items, and from each a patch in the way of a sampler of volumes.

    Args:
        items: A torch Dataset, or any sequence of items.
        make: Makes a sampler from volumes by id: the sampler module's function with its arguments bound.
        where: Name of the module in errors.
        classes: Number of classes of objects.
        least: Items are padded to at least this size (z, y, x); the padding is masked out.
    """

    def __init__(
        self, items: Any, make: Callable[[Volumes], Callable[..., Any]], where: str, classes: int, least: Vec3
    ) -> None:
        if len(items) == 0:
            raise InputError(where, "no item", "one at least: crops with objects, or min_objects 0")
        self.items, self.make, self.where, self.classes, self.least = items, make, where, classes, least

    def __call__(self, rng: np.random.Generator) -> dict[str, Array]:
        """Make one sample."""
        place = int(rng.integers(len(self.items)))
        return dict(self.make({f"item {place}": self.volume(place)})(rng))

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.volume(0)["img"])

    def volume(self, place: int) -> Mapping[str, Any]:
        """Convert an item to a volume: img, seg with one channel of ids per class, and seg_msk."""
        where = f"{self.where}: item {place}"
        try:
            image, target = self.items[place]
            grey, masks, classes = (np.asarray(part) for part in (image, target["masks"], target["labels"]))
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            wants = "(image (C, Z, Y, X), {'boxes', 'labels', 'masks'})"
            raise InputError(where, f"{type(error).__name__} {error}", wants) from error
        if grey.ndim != 4 or masks.shape != (len(classes), *grey.shape[-3:]):
            got = f"an image of shape {grey.shape}, {len(classes)} labels, masks of shape {masks.shape}"
            raise InputError(where, got, "(C, Z, Y, X), N, and (N, Z, Y, X)")
        if grey.dtype != np.uint8 and not (grey.dtype.kind == "f" and grey.min() >= 0 and grey.max() <= 1):
            raise InputError(where, f"{grey.dtype} from {grey.min():g} to {grey.max():g}", "uint8, or float in [0, 1]")
        grey = grey if grey.dtype == np.uint8 else grey.astype(np.float32, copy=False)
        ids = ids_of(where, masks, classes, self.classes, vec3(grey.shape[-3:]))
        volume = {"img": grey, "seg": ids, "seg_msk": np.ones((1, *grey.shape[-3:]), np.uint8)}
        made = {key: np.ascontiguousarray(padded(array, self.least)) for key, array in volume.items()}
        return Volume(**made, loc=False)  # check here, to avoid a warning for each item without an object


def ids_of(where: str, masks: Array, labels: Array, classes: int, size: Vec3) -> Array:
    """Convert masks (N, Z, Y, X) to ids 1..N, with one channel per class; where masks overlap, the later one wins.

    With a single class, all objects belong to it.
    """
    ids = np.zeros((classes, *size), np.int32)
    for number, (mask, label) in enumerate(zip(masks, labels, strict=True), 1):
        if not (classes == 1 or 1 <= label <= classes):
            raise InputError(where, f"the class {label}", f"1 to {classes}, see inst_classes")
        ids[0 if classes == 1 else int(label) - 1][mask != 0] = number
    return ids


def padded(array: Array, least: Vec3) -> Array:
    """Pad an array (C, Z, Y, X) with zeros at the end of each axis to the size `least`."""
    more = [max(m - n, 0) for m, n in zip(least, array.shape[-3:], strict=True)]
    return np.pad(array, [(0, 0), *((0, n) for n in more)]) if any(more) else array
