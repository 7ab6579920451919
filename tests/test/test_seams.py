"""Faults of other programs at the seams of a stitched volume, each as the smallest input that shows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepem.io.stored import Image
from deepem.models import cnnectome_unet, rsunet_act
from deepem.models.detection.tiles import tiles
from deepem.scan.grid import Grid
from deepem.scan.stitch import Scan
from deepem.scan.weights import Blend, choose_profile
from deepem.test.forward import predict
from deepem.test.prepared import ranged
from deepem.utils.geometry import Box
from deepem.utils.intensity import Percentiles


def cropping(margin: int):
    """A network that gives the middle of its patch, as logits of the grey values."""

    def model(x: torch.Tensor) -> dict[str, torch.Tensor]:
        inner = x[..., margin:-margin, margin:-margin, margin:-margin]
        return {"image": inner.clamp(1e-6, 1 - 1e-6).logit()}

    return model


def test_tiles_are_cut_by_their_margin_at_the_border_and_inside_alike():
    """bioimage-io/core-bioimage-io-python #401: three tiles an axis, a length that is no multiple of the tile."""
    margin, output = 4, 6
    image = np.random.default_rng(0).random((23, 24, 25), np.float32)
    size = (output + 2 * margin,) * 3
    for overlap in ((0, 0, 0), (2, 2, 2)):
        found = predict(cropping(margin), image, patch_size=size, output_size=(output,) * 3, overlap=overlap)["image"]
        np.testing.assert_allclose(found[0], image[4:-4, 4:-4, 4:-4], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bump", ["zung", "wu", "wu_no_crust"])
@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 3, 3), (4, 5, 6)])
def test_a_constant_stays_constant_on_faces_edges_and_corners(dtype, bump, stride):
    """PytorchConnectomics commit a509fab1: tapered weights, half precision; values of 3.7 on the faces there."""
    grid = Grid((13, 17, 19), (4, 6, 8), (4, 6, 8), stride)
    profile = choose_profile("bump", bump, grid)
    ones = torch.ones(1, 1, *grid.patch, dtype=dtype)
    scan = Scan(grid, lambda x: {"a": ones}, {}, Blend(profile), channels={"a": 1}, dtype=dtype)
    ((_, values),) = scan.run(lambda box: torch.zeros(1, *box.size))
    np.testing.assert_allclose(values["a"].numpy(), 1, rtol=0, atol=1e-6)


class Half(torch.nn.Module):
    """A network whose weights and output are in half precision, and whose probability is 1 everywhere."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 1, 1, dtype=dtype)
        torch.nn.init.constant_(self.conv.bias, 30)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.conv(x.to(self.conv.weight.dtype))}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blend", ["bump", "mean", "precomputed"])
def test_a_constant_of_a_network_in_half_precision_stays_constant(dtype, blend):
    image = np.random.default_rng(0).random((13, 17, 19), np.float32)
    flips = {"overlap": (3, 4, 4), "blend": blend, "test_aug": [0, 7]}
    for amp in (False, True):
        found = predict(Half(dtype), image, patch_size=(4, 6, 8), amp=amp, **flips)["a"]
        np.testing.assert_allclose(found, 1, rtol=0, atol=1e-3)


KERNELS = {"kernel_size_down": [[(1, 3, 3)]] * 2, "kernel_size_up": [[(1, 3, 3)]]}
SPECS = {"in_spec": {"input": (1, 1, 32, 32)}, "out_spec": {"affinity": (3, 1, 32, 32)}}


def in_a_tile(net: torch.nn.Module, image: np.ndarray, side: int, context: int) -> np.ndarray:
    """The middle of an image (1, 48, 48), predicted in a tile of this side."""
    rim = (48 - side) // 2
    tile = image[:, rim : 48 - rim, rim : 48 - rim]
    output = (1, side - context, side - context)
    found = predict(net, tile, patch_size=tile.shape, output_size=output)["affinity"]
    return found[:, 0, output[1] // 2, output[2] // 2]


@pytest.fixture
def bright_rim() -> np.ndarray:
    """Grey noise with a bright object that only the larger tile sees."""
    image = (0.3 * np.random.default_rng(0).random((1, 48, 48))).astype(np.float32)
    image[:, :7, 10:40] = 1
    return image


def test_a_bright_object_in_the_rim_of_a_larger_tile_changes_nothing(bright_rim, capsys):
    """constantinpape/torch-em #247."""
    torch.manual_seed(0)
    flags = {"downsample_factors": [(1, 2, 2)], **KERNELS, "num_fmaps": 4, "fmap_inc_factor": 2}
    net = cnnectome_unet.create_model(**SPECS, **flags, batch_norm=True)
    with torch.no_grad():
        net.train()(torch.rand(2, 1, 1, 32, 32))  # statistics that are not the default
    small, large = (in_a_tile(net, bright_rim, side, 8) for side in (32, 48))
    np.testing.assert_allclose(small, large, atol=1e-5)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("norm", "layer"), [("instance", "InstanceNorm3d"), ("group", "GroupNorm")])
def test_statistics_of_the_tile_are_warned_of(bright_rim, capsys, norm, layer):
    torch.manual_seed(0)
    net = rsunet_act.create_model(**SPECS, width=[16, 16], norm=norm, group=4 if norm == "group" else 0)
    small, large = (in_a_tile(net, bright_rim, side, 0) for side in (32, 48))
    assert np.abs(small - large).max() > 1e-3
    assert f"warning: model: {layer} by the statistics of each patch" in capsys.readouterr().err


def test_grey_values_become_0_to_1_by_the_whole_volume_and_not_by_each_tile():
    """MouseLand/cellpose #608: a dark and a bright half stay dark and bright, whatever the tiles."""
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.integers(100, 300, (6, 8, 9)), rng.integers(9000, 40000, (6, 8, 9))]).astype(np.uint16)
    seen = ranged(Image("image", image, as_stored=True), Percentiles(0, 100))
    whole = seen.read(Box((0, 0, 0), image.shape))
    low, high = float(image.min()), float(image.max())
    np.testing.assert_allclose(whole[0], (image - low) / (high - low), atol=1e-6)
    for tile in tiles(image.shape, (4, 5, 6), (1, 1, 2)):
        np.testing.assert_array_equal(seen.read(tile.box), whole[(slice(None), *tile.box.slices())])
