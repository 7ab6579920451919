"""Apply a model to an image in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from deepem.io.stored import Image
from deepem.scan.asked import device_asked, edges_given, flips_of, size_of, temperature_of
from deepem.scan.augment import Augmented
from deepem.scan.grid import Grid, resolve_stride
from deepem.scan.heads import Edges, blends, edges_of
from deepem.scan.kinds import activations, is_dense
from deepem.scan.memory import Cost, available, cut, trial
from deepem.scan.overlap import overlapped
from deepem.scan.patch_network import Network, device_of, evaluating
from deepem.scan.progress import Progress
from deepem.scan.stitch import Scan
from deepem.scan.weights import Blend, choose_profile
from deepem.tasks import Task
from deepem.utils.convolution import quick
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3

Prediction = dict[str, NDArray[np.float32]]


def predict(
    model: Any,
    image: ArrayLike,
    *,
    patch_size: Vec3,
    output_size: Vec3 | None,
    overlap: Sequence[float],
    stride: Sequence[float] | None,
    blend: str,
    bump: str,
    edges: Any,
    mask_edges: Any,
    temperature: float | None,
    test_aug: Sequence[int] | None,
    variance: bool,
    device: torch.device | str | None,
    batch_size: int,
    amp: bool,
    progress: bool,
    tasks: Sequence[Task],
) -> Prediction:
    """See `deepem.test.forward.predict`."""
    source = Image("image", np.asarray(image))
    patch = size_of("patch_size", patch_size)
    output = patch if output_size is None else size_of("output_size", output_size)
    edges, mask_edges = edges_given("edges", edges), edges_given("mask_edges", mask_edges)
    if batch_size < 1:
        raise InputError("batch_size", batch_size, "1 or more patches")
    grid = Grid(source.size, patch, output, resolve_stride(output, overlap, stride))
    profile = choose_profile(blend, bump, grid)
    target = device_asked(device) or device_of(model)
    if device is not None and isinstance(model, torch.nn.Module):
        model.to(target)
    warmth = temperature_of(temperature)
    objects = {row.name for row in tasks if not is_dense(row)}
    network = Network(model, output, grid.covered.begin, warmth, amp, activations=activations(tasks), drop=objects)
    flips = flips_of(test_aug)
    if variance and not flips:
        raise InputError("variance", "no test_aug", "the flips to take it over")

    with evaluating(model), quick(model):
        own: Edges = {}
        masks: dict[str, Blend] = {}
        cost: Cost | None = None
        if flips or mask_edges or edges is not None or target.type == "cuda":  # these need the output channels
            channels, cost = _tried(network, torch.zeros(batch_size, source.channels, *patch, device=target))
            own = edges_of(edges, channels, rows=tasks)
            masks = blends(profile, mask_edges, channels, own)

        def scan_of(size: Vec3) -> Scan:
            here = Grid(size, patch, output, grid.stride)
            return Scan(here, network, masks, Blend(profile), target, batch_size, done=lambda n: bar.add(n))

        run = Augmented(scan_of, source.size, flips, own, variance) if flips else scan_of(source.size)
        boxes, depth, patches = _pieces(run, grid, cost, target)
        found = _Collected(grid.covered)
        with Progress(patches, grid.covered.voxels, progress) as bar:
            overlapped(run, boxes, depth, source, found.write, target)
        return found.arrays


def _tried(network: Network, patches: torch.Tensor) -> tuple[dict[str, int], Cost]:
    """Run the network on patches (N, C, Z, Y, X) once; return the channels of its outputs and what a scan will cost."""
    channels: dict[str, int] = {}
    taken = trial(lambda: channels.update(network.channels(patches)), patches.device)
    return channels, Cost(4 * patches.shape[1], 4 * sum(channels.values()), taken)


def _pieces(
    run: Scan | Augmented, grid: Grid, cost: Cost | None, device: torch.device
) -> tuple[list[Box], int | None, int]:
    """Return the boxes to scan, the depth of a run and the number of patches.

    In main memory the volume is one piece, since its sums are the result; on a GPU it is split to fit the memory.
    """
    whole = [grid.covered], None, run.count(grid.covered)
    if device.type != "cuda" or cost is None:
        return whole
    found = cut(run, grid, grid.covered, cost, available(device))
    return whole if found is None else (found.boxes, found.depth, found.patches)


class _Collected:
    """Joins the parts of a scan into arrays; a single part is kept without a copy."""

    def __init__(self, covered: Box) -> None:
        self.covered = covered
        self.arrays: Prediction = {}

    def write(self, box: Box, values: Mapping[str, NDArray[Any]], last: bool) -> None:
        """Take finished planes of a box."""
        for name, array in values.items():
            if box == self.covered:
                self.arrays[name] = array
                continue
            if name not in self.arrays:
                self.arrays[name] = np.empty((len(array), *self.covered.size), np.float32)
            z, y, x = box.shift(-b for b in self.covered.begin).slices()
            self.arrays[name][:, z, y, x] = array
