"""The scan: runs the network on patches, adds them to a running sum per output, and yields planes once they are final.

Patches are visited z slowest, then y, then x. A run is a group of consecutive layers of patches. Its sums extend from
the run's first output plane to its last. Planes that no later layer touches are final and are yielded; the other planes
are carried over into the next run::

    z  ->   |--- run 0 ---|
            |== final ==|carry|
                        |--- run 1 ---|
                        |== final ==|carry|

Any box of the covered voxels can be scanned alone. It uses all patches that touch it, in the same order as in the whole
volume. Every voxel sums the same terms in the same order, so the result is bit-identical however a volume is split.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from deepem.scan.grid import Grid, Layers, runs
from deepem.scan.weights import Blend, Weights
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3

Infer = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
"""(N, C, Z, Y, X) float32 patches -> {name: (N, C, Z, Y, X) values to blend}, valid until the next call."""

Read = Callable[[Box], torch.Tensor]
"""A box of the input volume -> (C, Z, Y, X) uint8 or float32, on the device."""

MANY = 64

T = TypeVar("T")

Finished = tuple[Box, dict[str, torch.Tensor]]


@dataclass
class Scan:
    """A scan of a volume, or of any part of it.

    Attributes:
        grid: The patch positions.
        infer: The network.
        blend: Output name -> blending; outputs that are not listed use `default`.
        default: See `blend`.
        device: Device of the sums.
        batch_size: Patches per call of the network. Every call gets exactly this many, so that each patch is computed
            the same way; the last batch is filled up with old patches whose results are dropped.
        channels: Channels of each output; needed if possibly no patch reaches the network.
        skip_background: Skip patches that contain only zeros; their probability is 0.
        dtype: Number type of the sums. Half-precision types mean float32: their sums would be off by up to 0.02.
        done: Called after each batch with its number of patches.
    """

    grid: Grid
    infer: Infer
    blend: Mapping[str, Blend] = field(default_factory=dict)
    default: Blend = field(default_factory=Blend)
    device: torch.device | str = "cpu"
    batch_size: int = 1
    channels: Mapping[str, int] = field(default_factory=dict)
    skip_background: bool = False
    dtype: torch.dtype = torch.float32
    done: Callable[[int], object] | None = None

    def __post_init__(self) -> None:
        self._weights: dict[Blend, Weights] = {}
        self._buffer: torch.Tensor | None = None

    def run(self, read: Read, box: Box | None = None, depth: int | None = None) -> Iterator[Finished]:
        """Compute a box (None: all covered voxels) and yield it in parts, z ascending.

        Args:
            read: Reads the input. A reader thread calls it, one run ahead.
            box: Voxels of the volume, within `grid.covered`.
            depth: Layers of patches per run; fewer need less memory. None: all layers, which gives a single part.

        Yields:
            (box, {name: (C, Z, Y, X) sums}). The caller may keep the tensors.
        """
        box = self.grid.covered if box is None else box
        if not self.grid.covered.contains(box):
            raise ValueError(f"{box} is not within {self.grid.covered}")
        z, y, x = self.grid.touching(box)
        parts = list(runs(z, depth))
        sums = _Sums(box, self.sum_dtype(), self.device)
        with ThreadPoolExecutor(1, "read") as pool:
            windows = _windows(pool, read, [self.grid.input_box((part, y, x)) for part in parts])
            for part, (corner, window), after in zip(parts, windows, [*parts[1:], None], strict=True):
                first, last = self.grid.axes[0].start(part[0]), self.grid.axes[0].start(part[-1]) + self.grid.output[0]
                sums.reach(max(first, box.begin[0]), min(last, box.end[0]))
                self._add_layers(sums, (part, y, x), corner, window)
                end = box.end[0] if after is None else max(self.grid.axes[0].start(after[0]), box.begin[0])
                if (final := sums.take(end)) is not None:
                    yield final

    def sum_dtype(self) -> torch.dtype:
        """Return float64 if a voxel sums more than MANY terms, since float32 rounding would then exceed 1e-6."""
        terms = math.prod(-(-o // s) for o, s in zip(self.grid.output, self.grid.stride, strict=True))
        return torch.float64 if terms > MANY or self.dtype == torch.float64 else torch.float32

    def count(self, box: Box) -> int:
        """Return the number of patches needed for a box."""
        return self.grid.count(box)

    def _add_layers(self, sums: _Sums, layers: Layers, corner: Vec3, window: torch.Tensor) -> None:
        if not sums.values and self.channels:
            sums.make(self.channels)
        places = [(index, self._input_slices(index, corner)) for index in itertools.product(*layers)]
        kept = self._kept([inside for _, inside in places], window)
        for batch in _batched(zip(places, kept, strict=True), self.batch_size):
            chosen = [place for place, keep in batch if keep]
            if chosen:
                self._infer_and_add(sums, [index for index, _ in chosen], [window[inside] for _, inside in chosen])
            if self.done is not None:
                self.done(len(batch))

    def _kept(self, patches: Sequence[tuple[slice, ...]], window: torch.Tensor) -> list[bool]:
        """Return which patches go to the network. Waits for the device once, not once per patch."""
        if not self.skip_background:
            return [True] * len(patches)
        found: list[bool] = torch.stack([window[inside].any() for inside in patches]).tolist()
        return found

    def _infer_and_add(self, sums: _Sums, batch: Sequence[Vec3], patches: Sequence[torch.Tensor]) -> None:
        shape = (self.batch_size, *patches[0].shape)
        if self._buffer is None or self._buffer.shape != shape:
            self._buffer = torch.zeros(shape, device=self.device)
        for row, patch in zip(self._buffer, patches, strict=False):
            row.copy_(patch)
        if patches[0].dtype == torch.uint8:
            self._buffer[: len(patches)].div_(255)
        outputs = self.infer(self._buffer)
        if not sums.values:
            sums.make({name: value.shape[1] for name, value in outputs.items()})
        for n, index in enumerate(batch):
            where = self.grid.output_box(index)
            for name, value in outputs.items():
                sums.add(name, where, value[n], self._weights_of(name).of(index))

    def _weights_of(self, name: str) -> Weights:
        blend = self.blend.get(name, self.default)
        if blend not in self._weights:
            self._weights[blend] = Weights(self.grid, blend, self.device)
        return self._weights[blend]

    def _input_slices(self, index: Vec3, corner: Vec3) -> tuple[slice, ...]:
        begins = (a.start(i) - a.front - c for a, i, c in zip(self.grid.axes, index, corner, strict=True))
        return (slice(None), *(slice(b, b + n) for b, n in zip(begins, self.grid.patch, strict=True)))


class _Sums:
    """The running sums of a box over the planes of the current run."""

    def __init__(self, box: Box, dtype: torch.dtype, device: torch.device | str) -> None:
        self.box, self.dtype, self.device = box, dtype, device
        self.values: dict[str, torch.Tensor] = {}
        self.begin = self.end = box.begin[0]

    def make(self, channels: Mapping[str, int]) -> None:
        """Allocate the sums, once the outputs are known."""
        self.values = {name: self._zeros(count) for name, count in channels.items()}

    def _zeros(self, channels: int) -> torch.Tensor:
        size = (channels, self.end - self.begin, *self.box.size[1:])
        if self.dtype == torch.float32 and torch.device(self.device).type == "cpu":
            return torch.from_numpy(np.zeros(size, np.float32))  # faster: numpy requests huge pages, torch does not
        return torch.zeros(size, dtype=self.dtype, device=self.device)

    def reach(self, begin: int, end: int) -> None:
        """Move the sums to planes [begin, end), keeping the values of planes they already hold."""
        kept, self.end = max(self.end - begin, 0), end
        self.begin = begin
        for name, old in self.values.items():
            self.values[name] = self._zeros(old.shape[0])
            self.values[name][:, :kept] = old[:, old.shape[1] - kept :]

    def add(self, name: str, where: Box, value: torch.Tensor, weights: torch.Tensor) -> None:
        """Add a patch's weighted output; voxels outside the sums are dropped."""
        total = self.values[name]
        corner = (self.begin, *self.box.begin[1:])
        inside, kept = [slice(None)], [slice(None)]
        for begin, end, first, length in zip(*where, corner, total.shape[1:], strict=True):
            low, high = max(begin - first, 0), min(end - first, length)
            inside.append(slice(low, high))
            kept.append(slice(low + first - begin, high + first - begin))
        at = tuple(kept)
        total[tuple(inside)].addcmul_(value[at], weights[at])

    def _planes(self, end: int) -> Box:
        (_, *begin), (_, *stop) = self.box
        return Box((self.begin, begin[0], begin[1]), (end, stop[0], stop[1]))

    def take(self, end: int) -> Finished | None:
        """Return the final planes, those before `end`; None if there are none."""
        planes = end - self.begin
        if planes <= 0:
            return None
        final = {name: value[:, :planes] for name, value in self.values.items()}
        if self.dtype != torch.float32:
            final = {name: value.float() for name, value in final.items()}
        return self._planes(end), final


def _windows(pool: ThreadPoolExecutor, read: Read, boxes: Sequence[Box]) -> Iterator[tuple[Vec3, torch.Tensor]]:
    """Yield the corner and the input of each run, read one run ahead; planes that two runs share are read once."""
    news = [boxes[0]]
    for before, box in itertools.pairwise(boxes):
        news.append(Box((max(before.end[0], box.begin[0]), box.begin[1], box.begin[2]), box.end))
    following: Future[torch.Tensor] | None = pool.submit(read, news[0])
    window: torch.Tensor | None = None
    for i, box in enumerate(boxes):
        assert following is not None
        fresh = following.result()
        if fresh.shape[1:] != news[i].size:
            raise InputError("image", f"{tuple(fresh.shape[1:])} voxels where {news[i].size} were asked for", "all")
        shared = box.size[0] - fresh.shape[1]
        window = fresh if window is None or not shared else torch.cat([window[:, -shared:], fresh], 1)
        following = pool.submit(read, news[i + 1]) if i + 1 < len(news) else None
        yield box.begin, window


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
