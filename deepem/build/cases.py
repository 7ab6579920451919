"""A prediction with its ground truth, and the segmentations of it that are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from deepem.data import target
from deepem.segment.channels import Channels
from deepem.tasks import Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Tiles, Vec3, vec3

Array = NDArray[Any]
Read = Callable[[Box], Array]

BLOCK: Vec3 = (64, 256, 256)

THRESHOLDS: dict[str, tuple[float, ...]] = {
    "agglomerate": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "mutex": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "components": (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99),
}
"""Decoder -> the thresholds to try."""


@dataclass(frozen=True)
class Ways:
    """How affinities are segmented for scoring.

    Attributes:
        decoders: Names in `THRESHOLDS`, or None for all decoders that the edges allow.
        thresholds: The thresholds to try, instead of those in the table.
        by: The criterion for choosing a threshold, one of `deepem.evaluate.choice.CRITERIA`.
    """

    decoders: tuple[str, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    by: str = "adapted_rand"

    def of(self, edges: Sequence[Vec3]) -> dict[str, tuple[float, ...]]:
        """Return decoder -> thresholds, for affinities along these edges."""
        names = self.decoders
        if names is None:
            try:
                names = ("agglomerate", "components", "mutex")[: 3 if Channels.of(edges).far else 2]
            except InputError:  # long-range edges alone allow no segmentation
                names = ()
        return {name: self.thresholds or THRESHOLDS[name] for name in names}


@dataclass(frozen=True)
class Case:
    """A prediction and its ground truth, read box by box in the coordinates of the prediction.

    Attributes:
        where: The name to use in errors.
        task: The task of the output.
        edges: For affinities, the (dz, dy, dx) of each channel.
        size: Size of the prediction, (z, y, x) voxels.
        predicted: (C, Z, Y, X) probabilities, or (1, Z, Y, X) classes.
        truth: The ground-truth label, (C, Z, Y, X).
        label: The name of this label, one of the task's sources.
        mask: (Z, Y, X) bool, True for voxels that count; None if all do.
        classes: Whether the prediction holds class numbers instead of probabilities.
    """

    where: str
    task: Task
    edges: tuple[Vec3, ...]
    size: Vec3
    predicted: Read
    truth: Read
    label: str
    mask: Read | None = None
    classes: bool = False

    @property
    def whole(self) -> Box:
        """The box of the whole prediction."""
        return Box((0, 0, 0), self.size)

    def blocks(self) -> Iterator[Box]:
        """Return the boxes to process one after the other."""
        return iter(Tiles(self.whole, BLOCK))

    def masked(self, box: Box) -> Array | None:
        """Return the mask inside a box."""
        return None if self.mask is None else self.mask(box)

    @cached_property
    def touching(self) -> bool:
        """Whether true instances touch without a gap between them."""
        counts = [target.contacts(self.truth(box)) for box in self.blocks()]
        return sum(touch for touch, _ in counts) > target.TOUCHING * sum(gap for _, gap in counts)

    def events(self, box: Box, channels: int) -> Array:
        """Return what each channel of a binary output should detect, (C, Z, Y, X), made as in training."""
        if self.label == self.task.fallback:
            area = grown(box, (0, 1, 1), self.whole)
            found = target.boundary(self.truth(area), self.touching)
            z, y, x = box.shift(-b for b in area.begin).slices()
            return found[:, z, y, x]
        label = self.truth(box)
        target.check_channels(self.where, self.task, channels, label)
        return target.binary(label, channels)


def grown(box: Box, by: Sequence[int], whole: Box) -> Box:
    """Grow a box by a margin, clipped to the whole volume."""
    found = Box(
        vec3(b - n for b, n in zip(box.begin, by, strict=True)), vec3(e + n for e, n in zip(box.end, by, strict=True))
    ).intersect(whole)
    assert found is not None
    return found
