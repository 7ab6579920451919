"""Volumes of classes behind cloud-volume: bytes of the type segmentation, beside probabilities."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cloudvolume")

from deepem.io.chunks import get, put
from deepem.io.cloud_sink import CloudSink, Layout, make_volume
from deepem.io.precomputed import open_volume
from deepem.io.pyramid import downsample
from deepem.utils.geometry import Box


def test_levels_of_classes_are_classes(tmp_path):
    """The mean of classes 1 and 3 would be class 2; the first of four stands for all, also where a level ends."""
    path = f"file://{tmp_path}/v"
    layout = Layout(Box((0, 1, 3), (3, 20, 40)), (40, 4, 4), (2, 8, 8)).of_classes()
    array = np.random.default_rng(0).choice(np.array([1, 3], np.uint8), (1, 3, 19, 37))
    put(make_volume(path, 1, layout, {}), layout.bounds, array)
    assert downsample(path, 1) == 2
    coarse = open_volume(path, 1)
    assert (coarse.layer_type, str(coarse.dtype)) == ("segmentation", "uint8")
    begin, end = tuple(coarse.bounds.minpt), tuple(coarse.bounds.maxpt)
    found = get(coarse, Box(begin[::-1], end[::-1]))
    for (y, x), value in np.ndenumerate(found[0, 1]):
        fine_y, fine_x = max(2 * (y + begin[1]) - 1, 0), max(2 * (x + begin[0]) - 3, 0)
        assert value == array[0, 1, fine_y, fine_x]


def test_classes_are_bytes_beside_float_probabilities(tmp_path):
    layout = Layout(Box((0, 0, 0), (4, 8, 16)), (40, 4, 4), (4, 8, 8))
    paths = {name: f"file://{tmp_path}/{name}" for name in ("semantic", "semantic_class")}
    values = {
        "semantic": np.full((3, 4, 8, 16), 0.25, np.float32),
        "semantic_class": np.full((1, 4, 8, 16), 2, np.uint8),
    }
    with CloudSink(paths, {"semantic": 3, "semantic_class": 1}, layout, (0, 0, 0), classes=["semantic_class"]) as sink:
        sink.write(layout.bounds, values, True)
    for name, array in values.items():
        volume = open_volume(paths[name])
        np.testing.assert_array_equal(get(volume, layout.bounds), array)
        assert str(volume.dtype) == str(array.dtype)
