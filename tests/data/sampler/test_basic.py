"""Samples of every combination of tasks, against volumes whose voxels encode their own position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepem.data.sampler.basic import Sampler, get_spec
from deepem.data.transform import FlipRotate
from deepem.data.transform.base import Apply, Augment, Sample, Spec
from deepem.data.volume import compact
from deepem.utils.errors import InputError

SHAPE = (6, 14, 16)
SIZE = (4, 8, 8)
POSITION = np.arange(np.prod(SHAPE)).reshape(SHAPE)
FIRST_ID = 2**24 + 1
CHANNELS = {"affinity": 3, "long_range": 2, "blood_vessel": 2}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def volume(phase: str = "train", **arrays: Any) -> dict[str, Any]:
    image = (POSITION / 2048).astype(np.float32)  # exact
    return compact("m a", {"img": image, **arrays}, ("seg", "bdr", "mit", "mye", "syn", "psd", "blv"), phase)


def sampler(
    *outputs: str, data: Any = None, size: Any = SIZE, aug: Any = None, prob: Any = None, **arrays: Any
) -> Sampler:
    data = {"a": volume(**arrays)} if data is None else data
    spec = get_spec({"input": (1, *SIZE)}, {name: (CHANNELS.get(name, 1), *size) for name in outputs})
    return Sampler(data, spec, True, aug, prob)


def cut(array: Any, pos: tuple[int, int, int], size: tuple[int, int, int] = SIZE) -> Any:
    begin = [p - s // 2 for p, s in zip(pos, size, strict=True)]
    return array[tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))]


def test_the_spec_is_the_shape_of_a_sample():
    made = sampler("affinity", "mitochondria", "blood_vessel", seg=POSITION, mit=POSITION % 2, blv=POSITION % 3)
    sample = made(rng())
    assert {key: array.shape for key, array in sample.items()} == made.spec
    types = {"affinity": np.int32, "mitochondria": np.uint8, "blood_vessel": np.uint8}
    assert {key: array.dtype for key, array in sample.items()} == {
        key: np.dtype(types.get(key, np.float32)) for key in sample
    }


def test_a_sample_can_be_written_where_it_is_wanted():
    labels = {
        "seg": POSITION,
        "mit": POSITION % 2,
        "blv": POSITION % 3,
        "msk": POSITION / 1024,
        "blv_msk": POSITION > 9,
    }
    made = sampler("affinity", "boundary", "mitochondria", "blood_vessel", "glia", aug=FlipRotate(), **labels)
    for seed in range(20):
        out = {key: np.full(shape, 7, dtype) for key, (shape, dtype) in made.layout.items()}
        sample = made(rng(seed), out)
        assert all(sample[key] is out[key] for key in out.keys() - {"glia", "glia_mask"})
        for key, array in made(rng(seed)).items():
            assert (array.shape, array.dtype) == made.layout[key]
            np.testing.assert_array_equal(sample[key], array)


def test_an_output_that_is_no_task_is_refused():
    with pytest.raises(InputError, match="the output cells, wants one of affinity"):
        get_spec({"input": (1, *SIZE)}, {"cells": (1, *SIZE)})


@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
def test_all_arrays_are_cut_at_the_same_place(dtype: Any):
    """Ids above 2**24, which float32 cannot hold, and above 2**31 survive."""
    ids = POSITION + (FIRST_ID if dtype == np.uint32 else 2**40 + 1)
    weights = POSITION / 1024
    made = sampler("affinity", "mitochondria", seg=ids.astype(dtype), mit=POSITION % 7 < 2, msk=weights)
    for seed in range(20):
        sample = made(rng(seed))
        tag, pos = made.locate(rng(seed))
        assert tag == made.which(rng(seed)) == "a"
        np.testing.assert_array_equal(sample["input"][0] * 2048, cut(POSITION, pos))
        np.testing.assert_array_equal(sample["affinity"][0], cut(ids, pos))
        np.testing.assert_array_equal(sample["mitochondria"][0], cut(POSITION % 7 < 2, pos))
        for mask in ("affinity_mask", "mitochondria_mask"):
            np.testing.assert_array_equal(sample[mask][0], cut(weights, pos).astype(np.float32))


def test_all_arrays_are_flipped_alike():
    made = sampler(
        "affinity", "mitochondria", aug=FlipRotate(), seg=POSITION, mit=POSITION % 7 < 2, msk=POSITION / 1024
    )
    poses = set()
    for seed in range(200):
        sample = made(rng(seed))
        ids = sample["affinity"][0]
        assert all(array.flags.c_contiguous for array in sample.values())
        np.testing.assert_array_equal(sample["input"][0] * 2048, ids)
        np.testing.assert_array_equal(sample["affinity_mask"][0] * 1024, ids)
        np.testing.assert_array_equal(sample["mitochondria"][0], ids % 7 < 2)
        np.testing.assert_array_equal(
            np.sort(ids, axis=None), np.sort(cut(POSITION, made.locate(rng(seed))[1]), axis=None)
        )
        poses.add(
            (int(ids[1, 0, 0] - ids[0, 0, 0]), int(ids[0, 1, 0] - ids[0, 0, 0]), int(ids[0, 0, 1] - ids[0, 0, 0]))
        )
    assert len(poses) == 16


def test_uint8_images_are_divided_by_255():
    data = {"a": compact("m a", {"img": (POSITION % 256).astype(np.uint8)}, (), "train")}
    made = sampler("mitochondria", data=data)
    image = made(rng())["input"][0]
    np.testing.assert_allclose(image, cut(POSITION % 256, made.locate(rng())[1]) / 255, rtol=1e-6)
    assert made.spec["input"] == (1, *SIZE)
    assert image.dtype == np.float32


def test_a_smaller_output_is_the_centre_of_the_input():
    inner = (2, 5, 4)
    made = sampler("affinity", "mitochondria", size=inner, seg=POSITION, mit=POSITION % 7 < 2, msk=POSITION % 5 < 3)
    sample, pos = made(rng()), made.locate(rng())[1]
    np.testing.assert_array_equal(sample["input"][0] * 2048, cut(POSITION, pos))
    np.testing.assert_array_equal(sample["affinity"][0], cut(POSITION, pos, inner))
    np.testing.assert_array_equal(sample["mitochondria"][0], cut(POSITION % 7 < 2, pos, inner))
    np.testing.assert_array_equal(sample["affinity_mask"][0], cut(POSITION % 5 < 3, pos, inner))


class Keys(Augment):
    """Writes down which arrays are read."""

    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        def apply(sample: Sample) -> Sample:
            assert set(sample) == set(spec.size)
            assert spec.images == ("img",)
            self.seen.append(set(sample))
            return sample

        return spec, apply


def test_each_array_is_read_once_and_an_absent_mask_never():
    keys = Keys()
    made = sampler("affinity", "long_range", "boundary", "mitochondria", aug=keys, seg=POSITION, mit=POSITION)
    sample = made(rng())
    assert keys.seen == [{"img", "seg", "mit"}]
    np.testing.assert_array_equal(sample["affinity"], sample["long_range"])
    assert all((sample[f"{name}_mask"] == 1).all() for name in ("affinity", "long_range", "boundary", "mitochondria"))
    sampler("affinity", "mitochondria", aug=keys, seg=POSITION, mit=POSITION, msk=POSITION % 2)(rng())
    assert keys.seen[-1] == {"img", "seg", "mit", "msk"}


def test_a_labels_own_mask_stands_in_for_the_common_one():
    made = sampler(
        "affinity", "mitochondria", seg=POSITION, mit=POSITION, msk=np.zeros(SHAPE), mit_msk=np.ones(SHAPE, bool)
    )
    sample = made(rng())
    assert sample["affinity_mask"].max() == 0
    assert sample["mitochondria_mask"].min() == 1


def test_a_missing_label_is_masked():
    data = {"a": volume(seg=POSITION + 1, msk=np.ones(SHAPE)), "b": volume(mit=np.ones(SHAPE, bool))}
    made = sampler("affinity", "mitochondria", data=data, prob={"b": 0.5, "a": 0.5})
    seen = {made.which(rng(seed)): made(rng(seed)) for seed in range(20)}
    assert set(seen) == {"a", "b"}
    assert seen["a"]["mitochondria"].max() == seen["a"]["mitochondria_mask"].max() == 0
    assert seen["b"]["affinity"].max() == seen["b"]["affinity_mask"].max() == 0
    assert seen["a"]["affinity_mask"].min() == seen["b"]["mitochondria_mask"].min() == 1
    assert all({key: array.shape for key, array in sample.items()} == made.spec for sample in seen.values())


def test_synapses_come_from_whichever_label_a_volume_has():
    data = {"a": volume(syn=np.ones(SHAPE, bool)), "b": volume(psd=np.ones(SHAPE, bool))}
    made = sampler("synapse", data=data)
    assert all(made(rng(seed))["synapse"].min() == 1 for seed in range(10))


def test_several_channels():
    two = np.stack([POSITION % 3 == 1, POSITION % 3 == 2])
    one, both = sampler("blood_vessel", blv=POSITION % 3), sampler("blood_vessel", blv=two)
    for seed in range(5):
        np.testing.assert_array_equal(one(rng(seed))["blood_vessel"], both(rng(seed))["blood_vessel"])
        pos = one.locate(rng(seed))[1]
        np.testing.assert_array_equal(one(rng(seed))["blood_vessel"][1], cut(two[1], pos))
    with pytest.raises(InputError, match="a blv: got 3 volumes"):
        sampler("blood_vessel", blv=np.zeros((3, *SHAPE), bool))


def test_boundaries_have_their_own_label_or_that_of_the_segmentation():
    gap = np.where(POSITION % 4 == 0, 0, POSITION // 4 + 1)
    made = sampler("boundary", seg=gap, seg_msk=np.zeros(SHAPE))
    np.testing.assert_array_equal(made(rng())["boundary"][0], cut(gap == 0, made.locate(rng())[1]))
    assert made(rng())["boundary_mask"].max() == 0
    drawn = sampler("boundary", seg=gap, bdr=POSITION % 5 == 0, seg_msk=np.zeros(SHAPE))
    np.testing.assert_array_equal(drawn(rng())["boundary"][0], cut(POSITION % 5 == 0, made.locate(rng())[1]))
    assert drawn(rng())["boundary_mask"].min() == 1
    columns = np.broadcast_to(np.arange(16), SHAPE)
    touching = sampler("boundary", seg=columns // 4 + 1)
    sides = np.isin(columns, [3, 4, 7, 8, 11, 12])
    inner = (slice(None), slice(None), slice(1, -1))  # at its rim a patch does not see the other instance
    made_of = cut(sides, touching.locate(rng())[1])[inner]
    np.testing.assert_array_equal(touching(rng())["boundary"][0][inner], made_of)


def test_locations_come_from_the_mask():
    mask = np.zeros(SHAPE, bool)
    mask[3, 7, 4:12] = True
    made = sampler("affinity", seg=POSITION, msk=mask, loc=True)
    assert {made.locate(rng(seed))[1] for seed in range(100)} == {(3, 7, x) for x in range(4, 12)}
    own = sampler("affinity", seg=POSITION, msk=mask, seg_msk=np.ones(SHAPE), loc=True)
    assert own.locate(rng())[1][:2] == (3, 7)
    assert own(rng())["affinity_mask"].min() == 1


def test_a_superset_is_drawn_as_one_id():
    data = {"both": {"x": volume(seg=POSITION), "y": volume(seg=POSITION + 1)}, "c": volume(seg=POSITION)}
    made = sampler("affinity", data=data, prob=[0.5, 0.5])
    assert {made.which(rng(seed)) for seed in range(30)} == {"both", "c"}
    assert {made.locate(rng(seed))[0] for seed in range(60)} == {"both/x", "both/y", "c"}
    assert made.probabilities == {"both": 0.5, "c": 0.5}


def test_volumes_may_come_as_a_dataset_gives_them():
    raw = {
        "img": POSITION / 2048,
        "seg": POSITION,
        "mye": POSITION,
        "msk_train": POSITION > 9,
        "msk_val": POSITION > 99,
    }
    spec = get_spec({"input": (1, *SIZE)}, {"affinity": (3, *SIZE)})
    for is_train, least in ((True, 9), (False, 99)):
        made = Sampler({"a": raw}, spec, is_train)
        for seed in range(20):
            sample = made(rng(seed))
            np.testing.assert_array_equal(sample["affinity_mask"], sample["affinity"] > least)
    with pytest.raises(InputError, match="a seg: got float64 labels"):
        Sampler({"a": raw | {"seg": POSITION * 1.0}}, spec)


def test_what_is_refused():
    with pytest.raises(InputError, match="a img: got 2 channels, wants 1"):
        sampler("mitochondria", data={"a": compact("m", {"img": np.zeros((2, *SHAPE), np.uint8)}, (), "train")})
    with pytest.raises(InputError, match=r"dataset a: got a patch of \(4, 8, 8\), wants .* \(3, 8, 8\)"):
        sampler("mitochondria", data={"a": compact("m", {"img": np.zeros((3, 8, 8), np.uint8)}, (), "train")})
    with pytest.raises(InputError, match="got none for a"):
        sampler("affinity", seg=POSITION, prob={"b": 1})
    with pytest.raises(InputError, match="got 2 values"):
        sampler("affinity", seg=POSITION, prob=[1, 2])
