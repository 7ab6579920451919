"""A model over an image in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from deepem.scan.grid import Grid, resolve_stride
from deepem.scan.stitch import Scan
from deepem.scan.weights import Blend, choose_profile
from deepem.test.network import Network, device_of, evaluating
from deepem.test.progress import Progress
from deepem.test.source import Source
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
    if test_aug or variance or mask_edges:
        raise InputError("predict", "test_aug, variance or mask_edges", "none of them yet")
    source = Source("image", np.asarray(image))
    output = vec3(output_size or patch_size)
    grid = Grid(source.size, vec3(patch_size), output, resolve_stride(output, overlap, stride))
    target = torch.device(device) if device is not None else device_of(model)
    if device is not None and isinstance(model, torch.nn.Module):
        model.to(target)

    def read(box: Box) -> torch.Tensor:
        return torch.from_numpy(source.read(box)).to(target)

    with evaluating(model), Progress(grid.count(grid.covered), grid.covered.voxels, progress) as bar:
        scan = Scan(
            grid,
            Network(model, output, grid.covered.begin, temperature, amp),
            default=Blend(choose_profile(blend, bump, grid)),
            device=target,
            batch_size=batch_size,
            done=bar.add,
        )
        ((_, sums),) = scan.run(read)
    return {name: value.cpu().numpy() for name, value in sums.items()}
