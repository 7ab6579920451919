"""Grey values of any type become 0 to 1, the same in every place that reads an image."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.data.sampler import basic
from deepem.io.stored import Image
from deepem.io.views import Ranged, blocks_of
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box
from deepem.utils.intensity import Intensity, Percentiles, from_plain, slabs


def test_bright_voxels_of_16_bits_stay_bright():
    image = np.array([0, 300, 40000, 65535], np.uint16).reshape(1, 1, 1, 4)
    made = Intensity(((0, 65535),))(image)
    assert made.dtype == np.float32
    assert (np.diff(made.ravel()) > 0).all()
    np.testing.assert_allclose(made.ravel(), np.array([0, 300, 40000, 65535]) / 65535, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
def test_it_is_the_formula_for_every_type(dtype):
    rng = np.random.default_rng(0)
    image = rng.uniform(-100, 100, (1, 3, 4, 5)) if np.dtype(dtype).kind != "u" else rng.uniform(0, 100, (1, 3, 4, 5))
    image = image.astype(dtype)
    before = image.copy()
    expected = np.clip((image.astype(float) + 20) / 70, 0, 1)
    np.testing.assert_allclose(Intensity(((-20, 50),))(image), expected, atol=1e-6)
    np.testing.assert_array_equal(image, before)


def test_large_numbers_keep_their_differences():
    image = np.array([2**30, 2**30 + 1, 2**30 + 2], np.int32).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(Intensity(((2**30, 2**30 + 2),))(image).ravel(), [0, 0.5, 1])


def test_each_channel_has_its_range():
    image = np.stack([np.full((2, 2, 2), 50), np.full((2, 2, 2), 500)]).astype(np.uint16)
    made = Intensity(((0, 100), (0, 1000)))(image)
    assert (made == 0.5).all()
    with pytest.raises(InputError, match="3 ranges"):
        Intensity(((0, 1),) * 3)(image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_percentiles_are_values_below_which_such_a_share_lies(dtype):
    image = np.random.default_rng(1).normal(100, 20, (2, 5, 20, 30)).clip(0, 255).astype(dtype)
    found = Percentiles(5, 90).of("it", slabs(image, 700), image[0].size)
    for channel, (low, high) in zip(image, found.ranges, strict=True):
        assert (low, high) == tuple(np.percentile(channel, [5, 90], method="inverted_cdf"))
    assert Percentiles(0, 100).of("it", [image], 1).ranges[0] == (image[0].min(), image[0].max())
    with pytest.raises(InputError, match="differ"):
        Percentiles(1, 99).of("it", [np.zeros_like(image)], 1)


def test_what_a_checkpoint_holds_means_the_same_again():
    for given in (Intensity(((3, 9), (0.5, 1))), Percentiles(1, 99)):
        assert from_plain(given.plain()) == given
    assert from_plain(None) is None


def test_training_and_prediction_see_the_same_numbers():
    image = np.random.default_rng(2).integers(0, 4096, (4, 12, 13)).astype(np.uint16)
    intensity = Intensity(((100, 3000),))
    volume = {"img": image, "seg": np.ones(image.shape, np.uint8), "intensity": intensity}
    spec = basic.get_spec({"input": (1, *image.shape)}, {"affinity": (3, *image.shape)})
    sampler = basic.Sampler({"it": volume}, spec)
    seen = sampler(np.random.default_rng(0))["input"]
    assert sampler.layout["input"][1] == np.float32
    read = Ranged(Image("img", image, as_stored=True), intensity).read(Box((0, 0, 0), image.shape))
    np.testing.assert_array_equal(seen, read)
    assert seen.min() == 0
    assert seen.max() == 1
    held = sampler.provider.leaves()[0].array("img")
    assert held.dtype == np.uint16
    assert np.shares_memory(held, image)


def test_blocks_of_a_volume_cover_it_once():
    image = np.arange(5 * 7 * 9, dtype=np.uint16).reshape(5, 7, 9)
    blocks = list(blocks_of(Image("img", image, as_stored=True), (2, 3, 4)))
    assert sorted(np.concatenate([b.ravel() for b in blocks]).tolist()) == image.ravel().tolist()


def test_without_a_range_such_an_image_is_refused():
    with pytest.raises(InputError, match="uint16"):
        Image("img", np.zeros((2, 2, 2), np.uint16))
    bad = Image("img", np.full((2, 2, 2), np.nan, np.float32), as_stored=True)
    with pytest.raises(InputError, match="no numbers"):
        bad.read(Box((0, 0, 0), (2, 2, 2)))
