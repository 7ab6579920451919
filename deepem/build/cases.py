"""A prediction beside its truth, and the ways to segment it that are scored."""

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
"""Decoder -> the thresholds that are tried."""


@dataclass(frozen=True)
class Ways:
    """How affinities become segments that are scored.

    Attributes:
        decoders: Of `THRESHOLDS`, or None for those that the edges allow.
        thresholds: To be tried, in place of those of the table.
        by: What a choice goes by, one of `deepem.evaluate.choice.CRITERIA`.
    """

    decoders: tuple[str, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    by: str = "adapted_rand"

    def of(self, edges: Sequence[Vec3]) -> dict[str, tuple[float, ...]]:
        """Decoder -> thresholds, for affinities along edges."""
        names = self.decoders
        if names is None:
            try:
                names = ("agglomerate", "components", "mutex")[: 3 if Channels.of(edges).far else 2]
            except InputError:  # long-range edges alone hold no segmentation
                names = ()
        return {name: self.thresholds or THRESHOLDS[name] for name in names}


@dataclass(frozen=True)
class Case:
    """A prediction and its truth, read by boxes of the prediction.

    Attributes:
        where: What an error names.
        task: The row of the output.
        edges: Of affinities, the (dz, dy, dx) of each channel.
        size: (z, y, x) voxels.
        predicted: (C, Z, Y, X) probabilities, or (1, Z, Y, X) classes.
        truth: The label, (C, Z, Y, X).
        label: Which label it is, one of the row's sources.
        mask: (Z, Y, X) bool, where voxels count; None for everywhere.
        classes: The prediction holds classes.
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
        """All of it."""
        return Box((0, 0, 0), self.size)

    def blocks(self) -> Iterator[Box]:
        """The boxes that are looked at one after the other."""
        return iter(Tiles(self.whole, BLOCK))

    def masked(self, box: Box) -> Array | None:
        """The mask of a box."""
        return None if self.mask is None else self.mask(box)

    @cached_property
    def touching(self) -> bool:
        """Whether the true instances touch without a gap."""
        counts = [target.contacts(self.truth(box)) for box in self.blocks()]
        return sum(touch for touch, _ in counts) > target.TOUCHING * sum(gap for _, gap in counts)

    def events(self, box: Box, channels: int) -> Array:
        """What the channels of a binary output should call, (C, Z, Y, X), made from the label as in training."""
        if self.label == self.task.fallback:
            area = grown(box, (0, 1, 1), self.whole)
            found = target.boundary(self.truth(area), self.touching)
            z, y, x = box.shift(-b for b in area.begin).slices()
            return found[:, z, y, x]
        label = self.truth(box)
        target.check_channels(self.where, self.task, channels, label)
        return target.binary(label, channels)


def grown(box: Box, by: Sequence[int], whole: Box) -> Box:
    """A box with a rim, within the whole."""
    found = Box(
        vec3(b - n for b, n in zip(box.begin, by, strict=True)), vec3(e + n for e, n in zip(box.end, by, strict=True))
    ).intersect(whole)
    assert found is not None
    return found
