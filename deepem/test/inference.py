"""A model over an image in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from deepem.scan.augment import Augmented
from deepem.scan.flips import Flip
from deepem.scan.grid import Grid, resolve_stride
from deepem.scan.stitch import Scan
from deepem.scan.weights import Blend, choose_profile
from deepem.test.heads import Edges, blends, edges_of
from deepem.test.network import Network, device_of, evaluating
from deepem.test.progress import Progress
from deepem.test.source import Source
from deepem.test.view import tensor
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

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
) -> Prediction:
    """See `deepem.test.forward.predict`."""
    source = Source("image", np.asarray(image))
    patch, output = vec3(patch_size), vec3(output_size or patch_size)
    step = resolve_stride(output, overlap, stride)
    grid = Grid(source.size, patch, output, step)
    profile = choose_profile(blend, bump, grid)
    target = torch.device(device) if device is not None else device_of(model)
    if device is not None and isinstance(model, torch.nn.Module):
        model.to(target)
    network = Network(model, output, grid.covered.begin, temperature, amp)
    flips = [Flip.of(number) for number in test_aug] if test_aug is not None else []
    if variance and not flips:
        raise InputError("variance", "no test_aug", "the flips to take it over")

    def read(box: Box) -> torch.Tensor:
        return tensor(source, box, target)

    with evaluating(model):
        own: Edges = {}
        masks: dict[str, Blend] = {}
        if flips or mask_edges or edges is not None:  # which outputs there are has to be known beforehand
            channels = network.channels(torch.zeros(batch_size, source.channels, *patch, device=target))
            own = edges_of(edges, channels)
            masks = blends(profile, mask_edges, channels, own)

        def scan_of(size: Vec3) -> Scan:
            here = Grid(size, patch, output, step)
            return Scan(here, network, masks, Blend(profile), target, batch_size, done=lambda n: bar.add(n))

        run: Scan | Augmented = scan_of(source.size)
        if flips:
            run = Augmented(scan_of, source.size, flips, own, variance)
        with Progress(run.count(grid.covered), grid.covered.voxels, progress) as bar:
            ((_, values),) = run.run(read)
    return {name: value.cpu().numpy() for name, value in values.items()}
