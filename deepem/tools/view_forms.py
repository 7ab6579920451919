"""Decide how a file is drawn in the viewer: as an image, labels, affinities or probabilities, with which colours.

Attributes decide, then the type and the name. Only where these leave it open, a small box of the volume is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem import tasks
from deepem.io.formats import split_path
from deepem.io.stored import Stored
from deepem.tools import view_shaders
from deepem.tools.view_shaders import Channel
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

Array = NDArray[Any]

SAMPLE: Vec3 = (8, 128, 128)
"""Voxels in the middle of a volume from which contrast and ambiguous types are determined."""

SAME = 0.75
"""Share of voxels equal to their neighbour above which a volume holds labels. Images of EM have about 0.1."""


@dataclass(frozen=True)
class Seen:
    """An opened file.

    Attributes:
        file: Its path, as given.
        stored: The file, opened.
        held: Its attributes, decoded.
    """

    file: str
    stored: Stored
    held: Mapping[str, Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type."""
        dtype: np.dtype[Any] = np.dtype(self.stored.data.dtype)
        return dtype

    @cached_property
    def task(self) -> tasks.Task | None:
        """The task of a prediction; None for other files."""
        flags = self.held.get("tasks")
        try:
            own = [tasks.from_plain(row) for row in self.held.get("rows", ())]
        except (InputError, TypeError):
            return None
        known = [row for row in own or tasks.TASKS if isinstance(flags, list) and row.flag in flags]
        return known[0] if len(known) == 1 else None

    @cached_property
    def sample(self) -> Array:
        """A box in the middle, (C, Z, Y, X)."""
        size = vec3(min(s, n) for s, n in zip(SAMPLE, self.stored.size, strict=True))
        return self.stored.read(Box.around([n // 2 for n in self.stored.size], size))


@dataclass(frozen=True)
class Form:
    """A way to draw a volume.

    Attributes:
        channels: Returns how the channels of a file are drawn.
        shader: Returns the shader, from the file and its channels.
        base: Whether it is shown behind other layers.
        labels: Whether values are ids that can be picked.
        opaque: Whether the layer covers what lies below it.
        types: The kinds of numpy types that can be drawn like this.
    """

    channels: Callable[[Seen], tuple[Channel, ...]]
    shader: Callable[[Seen, Sequence[Channel]], str]
    base: bool = False
    labels: bool = False
    opaque: bool = True
    types: str = "uifb"


def _no_channels(seen: Seen) -> tuple[Channel, ...]:
    return ()


def _edges(seen: Seen) -> tuple[Channel, ...]:
    edges = seen.stored.edges
    if not edges and seen.stored.channels <= 3:
        return view_shaders.in_order(seen.stored.channels)
    if len(edges) != seen.stored.channels:
        got = f"{len(edges)} edges for {seen.stored.channels} channels"
        raise InputError(seen.file, got, "an attribute edges with [z, y, x] for each channel, or another --kind")
    return view_shaders.of_edges(edges)


def _classes(seen: Seen) -> tuple[Channel, ...]:
    background = seen.task is not None and tasks.KINDS[seen.task.kind].classes
    return view_shaders.of_classes(seen.stored.channels, background)


def _grey(seen: Seen, channels: Sequence[Channel]) -> str:
    return view_shaders.grey(*window(seen))


def _sums(seen: Seen, channels: Sequence[Channel]) -> str:
    return view_shaders.sums(channels)


def _overlays(seen: Seen, channels: Sequence[Channel]) -> str:
    return view_shaders.overlays(channels)


def _no_shader(seen: Seen, channels: Sequence[Channel]) -> str:
    return ""


FORMS: dict[str, Form] = {
    "image": Form(_no_channels, _grey, base=True),
    "segmentation": Form(_no_channels, _no_shader, labels=True, opaque=False, types="uib"),
    "affinity": Form(_edges, _sums),
    "probability": Form(_classes, _overlays, opaque=False),
}
"""Every value of --kind."""

KINDS: dict[str, str] = {
    "affinity": "affinity",
    "binary": "probability",
    "semantic": "probability",
    "instance": "segmentation",
}
"""Kind of a task -> the form of its probabilities."""

VALUES = {"class": "segmentation", "label": "segmentation", "variance": "image"}
"""Attribute `values` of an output of deepem forward -> its form."""

LAYER_TYPES = ("image", "segmentation")
"""What the info file of a precomputed volume may say."""

LABELS = {"msk", *(source for task in tasks.TASKS for source in task.sources)}
"""Names of label volumes in the folders of a dataset: seg.h5, mit.h5, ..."""


def form_of(seen: Seen) -> str:
    """Return the form of a file: what its attributes say, else its type and name, else its values."""
    stored, dtype = seen.stored, seen.dtype
    if (values := seen.held.get("values")) in VALUES:
        return VALUES[values]
    if seen.task is not None:
        return KINDS[seen.task.kind]
    if stored.edges:
        return "affinity"
    if (told := seen.held.get("type")) in LAYER_TYPES and stored.channels == 1:
        return str(told)
    if stored.channels > 1:
        return "affinity" if stored.channels == 3 else "probability" if dtype.kind == "f" else "image"
    return "segmentation" if _holds_labels(seen) else "image"


def _holds_labels(seen: Seen) -> bool:
    """Whether a volume of one channel holds labels rather than grey values."""
    dtype = seen.dtype
    if dtype.kind == "f" or dtype.kind == "b" or dtype.itemsize > 2:
        return dtype.kind != "f"
    path, key = split_path(seen.file)
    name = PurePosixPath(key or path.rstrip("/")).name.partition(".")[0]
    if name in LABELS or name.endswith("_msk"):
        return True
    sample = seen.sample[0]
    constant = sample.size == 0 or (sample == sample.flat[0]).all()
    return name != "img" and not constant and bool((sample[..., 1:] == sample[..., :-1]).mean() > SAME)


def window(seen: Seen) -> tuple[float, float]:
    """Return the values that become black and white: the range of uint8, 0 to 1, or what most of the values span."""
    if seen.dtype == np.uint8:
        return 0.0, 255.0
    values = seen.sample[np.isfinite(seen.sample)] if seen.dtype.kind == "f" else seen.sample
    if (
        seen.dtype.kind == "b"
        or not values.size
        or (seen.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1)
    ):
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values.astype(np.float64), (0.5, 99.5)))
    return low, high if high > low else low + 1
