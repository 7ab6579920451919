"""A tiny network of feature maps, and the recorded figures of the 2-D reference."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn


class Pyramid(nn.Module):
    """Two maps of 8 channels, strides 2 and 4."""

    def __init__(self, channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.out_channels = {"p1": width, "p2": width}
        self.strides = {"p1": (2, 2, 2), "p2": (4, 4, 4)}
        self.stem = nn.Sequential(nn.Conv3d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2))
        self.deep = nn.Sequential(nn.Conv3d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2))

    def forward(self, x):
        fine = self.stem(x)
        return OrderedDict(p1=fine, p2=self.deep(fine))


class Single(nn.Module):
    """One map as a bare tensor, stride 2 in y and x only."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.out_channels, self.strides = 8, {"0": (1, 2, 2)}
        self.stem = nn.Sequential(nn.Conv3d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2)))

    def forward(self, x):
        return self.stem(x)


SMALL = {
    "representation_size": 16,
    "mask_layers": (8,),
    "rpn_batch_size_per_image": 32,
    "box_batch_size_per_image": 16,
    "rpn_pre_nms_top_n_train": 64,
    "rpn_post_nms_top_n_train": 32,
    "rpn_pre_nms_top_n_test": 64,
    "rpn_post_nms_top_n_test": 32,
    "box_detections_per_img": 10,
}


@pytest.fixture
def pyramid():
    return Pyramid


@pytest.fixture
def single():
    return Single


@pytest.fixture
def small():
    """Settings of a quick detector."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def recorded(shared):
    """name -> {key: tensor} of a file of recorded figures."""

    def read(name):
        with np.load(shared / "parity" / "detection" / f"{name}.npz") as found:
            return {key: torch.tensor(found[key]) for key in found}

    return read


@pytest.fixture
def to_3d():
    """Boxes (x1, y1, x2, y2) as (z1, y1, x1, z2, y2, x2) of one section, or of as many as are named."""

    def convert(boxes, sections=1.0):
        x1, y1, x2, y2 = boxes.unbind(1)
        return torch.stack([0 * x1, y1, x1, 0 * x1 + sections, y2, x2], 1)

    return convert


@pytest.fixture
def boxes_at():
    """n random boxes within a cube of a side."""

    def draw(n, side=40.0, seed=0, least=2.0, most=20.0):
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(n, 3, generator=generator) * (side - most)
        return torch.cat([low, low + least + torch.rand(n, 3, generator=generator) * (most - least)], 1)

    return draw
