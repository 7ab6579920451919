"""Prepare a volume for the scan: contrast, mask and border as the options say, in voxels of the output.

A network whose output is smaller than its patch leaves the border of the volume without a value, unless it sees context
beyond it (`--context`). A network that tiles predicts the same value for a voxel from every patch whose begin is a
multiple of its total pooling. The volume is reflected at its end so that the last patch begins at a multiple, too::

    volume   |=================================|       step 4, patch 8, output 4
    patches  [  oooo  ]                                the last patch begins at a multiple of 4 as well; its output
                     [  oooo  ]                        is cut where it would end without the reflection
                             [  oooo  ].. reflected
"""

from __future__ import annotations

import math
from typing import Any

from deepem.io.precomputed import CloudSource
from deepem.io.views import Finer, Masked, Mirrored, Normalised, Ranged, View, blocks_of, tables_of
from deepem.io.volume import Volume
from deepem.scan.progress import tell
from deepem.test.job import Job
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, vec3
from deepem.utils.intensity import Intensity, Percentiles


class Prepared(View):
    """A volume in voxels of the output.

    Attributes:
        inside: The voxels that may be predicted.
    """

    def __init__(self, inner: Volume, inside: Box) -> None:
        super().__init__(inner)
        self.inside = inside


def prepared(
    job: Job, volume: Volume, mask: Volume | None = None, tables: Any = None, asked: Box | None = None
) -> Prepared:
    """Apply the options to a volume: contrast, mask, padding, and voxels of the output.

    Args:
        job: The network and the options.
        volume: The volume as stored.
        mask: The volume is read as 0 where the mask is 0.
        tables: Tables for `--gs_input_norm`.
        asked: The box to predict, in voxels of the volume; anything around it is context.

    Raises:
        InputError: the volume has other channels than the network, or is smaller than a patch.
    """
    options = job.options
    if volume.channels != job.channels:
        raise InputError(volume.name, f"{volume.channels} channels", f"{job.channels}, as in training")
    if job.intensity is not None:
        volume = ranged(volume, job.intensity)
    if options.cloud.gs_input_norm is not None:
        volume = Normalised(volume, tables_of(volume, *options.cloud.gs_input_norm) if tables is None else tables)
    if mask is not None:
        volume = Masked(volume, mask)
    if options.patches.mirror is not None:
        half = vec3(n // 2 for n in options.patches.mirror)
        volume = Mirrored(volume, half, half)
    if options.patches.pad_small:
        padded = Mirrored.to_size(volume, job.patch)
        asked = getattr(padded, "own", None) if asked is None else asked  # the padding is not predicted
        volume = padded
    return _with_border(job, volume, asked)


def ranged(volume: Volume, intensity: Intensity | Percentiles) -> Volume:
    """Map the grey values of a volume as in training, and report the range."""
    if isinstance(intensity, Percentiles):
        intensity = intensity.of(volume.name, blocks_of(volume), math.prod(volume.size))
    tell(f"{volume.name}: grey values {intensity.in_words()} become 0 to 1")
    return Ranged(volume, intensity)


def _with_border(job: Job, volume: Volume, asked: Box | None) -> Prepared:
    """Add the context that the network sees beyond the border, and the box that may be predicted."""
    size, before, after, fine = volume.size, [0, 0, 0], [0, 0, 0], job.sizes.factor
    mirrored = job.options.patches.context == "mirror"
    if mirrored:
        before, after = list(job.margin[0]), list(job.margin[1])
        after = [max(a, p - b - n) for a, p, b, n in zip(after, job.patch, before, size, strict=True)]
    if job.dense and any(b + n + a < p for b, n, a, p in zip(before, size, after, job.patch, strict=True)):
        wants = f"at least one patch, {job.patch}, or --pad_small"
        raise InputError(volume.name, f"a volume of {size}", wants)
    back = vec3(p - o - f for p, o, f in zip(job.fine_patch, job.output, job.front, strict=True))
    limit = Box(
        vec3(b * f if mirrored else n for b, f, n in zip(before, fine, job.front, strict=True)),
        vec3((b + n) * f - (0 if mirrored else k) for b, n, f, k in zip(before, size, fine, back, strict=True)),
    )
    if asked is not None:
        shifted = asked.shift(before)
        begin, end = (vec3(c * f for c, f in zip(corner, fine, strict=True)) for corner in shifted)
        found = limit.intersect(Box(begin, end))
        if found is None:
            raise InputError(volume.name, f"the box {asked.begin} to {asked.end}", "one further from the volume's end")
        limit = found
    rest = zip(before, size, after, job.patch, job.step, strict=True)
    after = [a + (p - b - n - a) % s for (b, n, a, p, s) in rest]
    if any((*before, *after)):
        volume = Mirrored(volume, vec3(before), vec3(after))
    return Prepared(volume if fine == (1, 1, 1) else Finer(volume, fine), limit)


def with_context(job: Job, source: CloudSource) -> CloudSource:
    """Extend a box of a volume by the context that the network sees around it, if `--context outside` is given."""
    if job.options.patches.context != "outside":
        return source
    begin, end = [], []
    margins = zip(*job.margin, strict=True)
    axes = zip(source.origin, source.size, margins, job.patch, job.step, *source.bounds, strict=True)
    for origin, size, (front, back), patch, step, first, last in axes:
        low = max(origin - front, first)
        high = max(origin + size + back, low + patch)
        begin.append(low)
        end.append(min(high + (patch - (high - low)) % step, last))
    return source.within(Box(vec3(begin), vec3(end)))


def asked_of(source: CloudSource, read: CloudSource) -> Box | None:
    """Return the box of a source in voxels of the extended volume `read`; None if nothing was added."""
    if read is source:
        return None
    return Box.of_size((o - r for o, r in zip(source.origin, read.origin, strict=True)), source.size)
