"""Where patches come from: every voxel of these volumes encodes its own position."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepem.data.provider import REDRAWS, DataProvider, Dataset, DataSuperset
from deepem.data.transform.base import Apply, Augment, Sample, Spec
from deepem.utils.crop import centre_crop
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, vec3


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def encoded(shape: tuple[int, int, int], offset: tuple[int, int, int] = (0, 0, 0)) -> Any:
    """(3, Z, Y, X): each voxel holds its z, y, x."""
    axes = [np.arange(n) + o for n, o in zip(shape, offset, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def dataset(shape: tuple[int, int, int], size: tuple[int, int, int], tag: str = "a", **mask: Any) -> Dataset:
    made = Dataset({"img": size}, tag)
    made.add_data("img", encoded(shape))
    for key, array in mask.items():
        made.add_mask(key, array, loc=True)
    return made


def provider(*datasets: Dataset | DataSuperset, augment: Augment | None = None) -> DataProvider:
    made = DataProvider({"img": (2, 3, 4)})
    for one in datasets:
        made.add_dataset(one)
    made.set_imgs(["img"])
    made.set_augment(augment)
    return made


class Grow(Augment):
    """Reads more than it needs, in every direction by the same random amount, and gives the centre."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        by = int(rng.integers(self.least, self.most))

        def apply(sample: Sample) -> Sample:
            return {key: centre_crop(array, spec.size[key]) for key, array in sample.items()}

        return spec.grown((2 * by, 2 * by, 2 * by)), apply


def test_the_valid_range_by_hand():
    # z: size 4 of 10 starts at 0 ... 6, so it is centred on 2 ... 8; y: 5 of 5 on 2 only; x: 1 of 3 anywhere.
    assert dataset((10, 5, 3), (4, 5, 1)).valid_range() == Box((2, 2, 0), (9, 3, 3))
    assert dataset((10, 5, 3), (4, 6, 1)).valid_range() is None


def test_the_valid_range_is_that_of_all_arrays():
    both = Dataset({"img": (4, 4, 4), "seg": (2, 2, 2)}, "a")
    both.add_data("img", encoded((10, 10, 10)))
    both.add_data("seg", np.zeros((4, 9, 20)), offset=(3, 1, -5))
    # img: 2 ... 8 in all axes; seg: z 4 ... 6, y 2 ... 9, x -4 ... 14
    assert both.valid_range() == Box((4, 2, 2), (7, 9, 9))
    for seed in range(20):
        pos = both.random_location(None, rng(seed))
        assert {key: array.shape[1:] for key, array in both.get_sample(pos).items()} == {
            "img": (4, 4, 4),
            "seg": (2, 2, 2),
        }


@given(size=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 2**32))
def test_patches_lie_around_their_location(size: tuple[int, int, int], seed: int):
    made = provider(dataset((6, 7, 8), size))
    patch = made(rng(seed))["img"]
    tag, pos = made.locate(rng(seed))
    assert tag == made.which(rng(seed)) == "a"
    begin = [p - s // 2 for p, s in zip(pos, size, strict=True)]
    np.testing.assert_array_equal(patch, encoded(size, vec3(begin)))


def test_every_valid_position_is_drawn_and_no_other():
    made = provider(dataset((3, 4, 5), (2, 3, 4)))
    drawn = {made.locate(rng(seed))[1] for seed in range(300)}
    assert drawn == {(z, y, x) for z in (1, 2) for y in (1, 2) for x in (2, 3)}


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2, 1.0])
def test_with_loc_patches_are_centred_on_the_mask_uniformly(share: float):
    mask = rng(1).random((12, 20, 20)) < share
    mask[6, 10, 10] = True
    made = provider(dataset(mask.shape, (4, 4, 4), msk=mask))
    drawn = Counter(made.locate(rng(seed))[1] for seed in range(1500))
    inside = Box((2, 2, 2), (11, 19, 19))
    allowed = {vec3(p) for p in np.argwhere(mask) if inside.contains(Box.of_size(p, (1, 1, 1)))}
    assert set(drawn) <= allowed
    if len(allowed) < 100:
        assert set(drawn) == allowed
    mean = np.mean([pos for pos, n in drawn.items() for _ in range(n)], axis=0)
    spread = np.std(list(allowed), axis=0) / np.sqrt(1500) * 5 + 1e-9
    assert (np.abs(mean - np.mean(list(allowed), axis=0)) <= spread).all()


@pytest.mark.parametrize("others", [0, 6000])
def test_the_one_location_that_fits_is_found(others: int):
    """Whether the mask is sparse or dense, with all its other voxels out of reach."""
    mask = np.zeros((40, 40, 40), bool)
    mask[:4].flat[:others] = True
    mask[20, 21, 22] = True
    made = provider(dataset(mask.shape, (10, 10, 10), msk=mask))
    assert {made.locate(rng(seed))[1] for seed in range(5)} == {(20, 21, 22)}


def test_an_augmentation_reads_around_the_same_location():
    shape, size = (12, 12, 12), (2, 3, 4)
    made = provider(dataset(shape, size), augment=Grow(0, 4))
    for seed in range(50):
        patch = made(rng(seed))["img"]
        begin = [p - s // 2 for p, s in zip(made.locate(rng(seed))[1], size, strict=True)]
        np.testing.assert_array_equal(patch, encoded(size, vec3(begin)))


def test_requests_that_do_not_fit_are_drawn_again():
    made = provider(dataset((8, 8, 8), (2, 3, 4)), augment=Grow(2, 40))  # only a growth by 2 voxels fits
    assert made(rng())["img"].shape == (3, 2, 3, 4)


def test_requests_that_never_fit_are_named():
    made = provider(dataset((8, 8, 8), (2, 3, 4), tag="small"), augment=Grow(5, 6))
    message = (
        rf"dataset small: got {REDRAWS} .* reading \(12, 13, 14\) .* patch of \(2, 3, 4\) .* volume of \(8, 8, 8\)"
    )
    with pytest.raises(InputError, match=message):
        made(rng())


def test_what_is_refused_at_the_start():
    with pytest.raises(InputError, match=r"dataset big: got a patch of \(2, 3, 9\), wants .* \(8, 8, 8\)"):
        provider(dataset((8, 8, 8), (2, 3, 9), tag="big"))
    corner = np.zeros((8, 8, 8))
    corner[0, 0, 0] = 1
    for mask in (corner, np.zeros_like(corner)):
        with pytest.raises(InputError, match="dataset a: got no voxel of the mask"):
            provider(dataset((8, 8, 8), (4, 4, 4), msk=mask))
    lacking = Dataset({"seg": (1, 1, 1)}, "a")
    lacking.add_data("img", encoded((2, 2, 2)))
    with pytest.raises(InputError, match="no array seg, wants one of img"):
        provider(lacking)


def share(made: DataProvider, tag: str, draws: int = 2000) -> float:
    return sum(made.which(rng(seed)) == tag for seed in range(draws)) / draws


def test_datasets_are_drawn_by_their_number_of_samples():
    mask = np.zeros((10, 10, 10))
    mask[5, 2:7, 2:8] = 1  # 30 locations
    volume = dataset((3, 4, 5), (1, 1, 1), tag="volume")  # 60 voxels
    made = provider(dataset((10, 10, 10), (1, 1, 1), tag="mask", msk=mask), volume)
    assert [d.num_samples for d in made.datasets] == [30, 60]
    assert made.probabilities == pytest.approx({"mask": 1 / 3, "volume": 2 / 3})
    assert share(made, "mask") == pytest.approx(1 / 3, abs=5 * np.sqrt(2 / 9 / 2000))


def test_datasets_are_drawn_by_given_weights():
    made = provider(*(dataset((3, 4, 5), (1, 1, 1), tag=tag) for tag in "abc"))
    made.set_sampling_weights([7, 2, 1])
    assert share(made, "a") == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 2000))
    assert share(made, "c") == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 2000))


def test_a_superset_is_drawn_as_one():
    inner = DataSuperset("both")
    for tag in ("both/x", "both/y"):
        inner.add_dataset(dataset((3, 4, 5), (1, 1, 1), tag=tag))
    inner.set_sampling_weights([3, 1])
    made = provider(inner, dataset((3, 4, 5), (1, 1, 1), tag="c"))
    made.set_sampling_weights([0.5, 0.5])
    assert share(made, "both") == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / 2000))
    volumes = Counter(made.locate(rng(seed))[0] for seed in range(2000))
    assert volumes["both/x"] / volumes["both/y"] == pytest.approx(3, abs=0.8)


@pytest.mark.parametrize("bad", [[1], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_are_positive_and_one_per_dataset(bad: list[float]):
    made = provider(dataset((3, 4, 5), (1, 1, 1)), dataset((3, 4, 5), (1, 1, 1)))
    with pytest.raises(InputError, match="sampling weights"):
        made.set_sampling_weights(bad)


def test_a_sample_is_no_view_of_its_volume():
    volume = encoded((3, 4, 5))
    whole = Dataset({"img": (3, 4, 5)}, "a")
    whole.add_data("img", volume)
    whole.random_sample(rng())["img"][:] = -1
    np.testing.assert_array_equal(volume, encoded((3, 4, 5)))


def test_a_dataset_without_a_spec_takes_the_providers():
    bare = Dataset(tag="a")
    bare.add_data("img", encoded((4, 4, 4)))
    assert provider(bare)(rng())["img"].shape == (3, 2, 3, 4)
    with pytest.raises(IndexError, match="leaves the volume"):
        bare.get_patch("img", (0, 2, 2), (2, 2, 2))
