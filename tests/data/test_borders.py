"""What is done to labels before targets are made: borders, pieces, what is not known, soft targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.data.borders import dilated, eroded
from deepem.data.sampler import basic
from deepem.data.volume import compact
from deepem.loss import AffinityLoss, BCELoss
from deepem.utils.errors import InputError

SHAPE = (2, 8, 9)
PATCH = (1, *SHAPE)


def drawn(labels, outputs, **flags):
    """The one sample of a volume that is as large as the patch."""
    data = {"it": {"img": np.zeros(SHAPE, np.uint8), **labels}}
    spec = basic.get_spec({"input": PATCH}, {name: (channels, *SHAPE) for name, channels in outputs.items()})
    return basic.Sampler(data, spec, **flags)(np.random.default_rng(0))


def test_erosion_by_one_leaves_what_is_not_known_and_its_neighbours():
    row = np.array([[1, 1, 1, -1, -1, 2, 2, 2]])
    np.testing.assert_array_equal(eroded(row), row)
    np.testing.assert_array_equal(eroded(np.array([[1, 1, 1, 2, 2, 2, -1, 3]])), [[1, 1, 0, 0, 2, 2, -1, 3]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_erosion_is_that_of_a_plain_loop(seed, by):
    seg = np.random.default_rng(seed).integers(-1, 3, (2, 7, 8))
    seg = np.repeat(np.repeat(seg, 2, 1), 2, 2)
    before = seg.copy()
    expected = seg.copy()
    border = np.zeros(seg.shape, bool)
    for z, y, x in np.ndindex(*seg.shape):
        around = seg[z, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        border[z, y, x] = seg[z, y, x] >= 0 and ((around >= 0) & (around != seg[z, y, x])).any()
    for z, y, x in np.ndindex(*seg.shape):
        if border[z, max(y - by + 1, 0) : y + by, max(x - by + 1, 0) : x + by].any() and seg[z, y, x] >= 0:
            expected[z, y, x] = 0
    np.testing.assert_array_equal(eroded(seg, by), expected)
    np.testing.assert_array_equal(seg, before)


def test_dilation_is_within_the_section():
    marks = np.zeros((1, 3, 5, 7), np.uint8)
    marks[0, 1, 2, 3] = 1
    wide = dilated(marks, 1)
    assert wide.sum() == 9
    assert wide[0, 1, 1:4, 2:5].all()
    assert dilated(marks, 0) is marks


def test_ids_of_minus_one_are_masked_out_of_every_task():
    seg = np.broadcast_to(np.array([1, 1, 1, -1, -1, 2, 2, 2, 2]), SHAPE)
    sample = drawn({"seg": seg}, {"affinity": 3, "boundary": 1}, label_erosion=1)
    assert (sample["affinity"][0, 0, 0] == seg[0, 0]).all()
    for name in ("affinity", "boundary"):
        np.testing.assert_array_equal(sample[f"{name}_mask"][0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 1, 1])
    assert not sample["boundary"].any()
    ids, mask = (torch.from_numpy(np.array(sample[key]))[None] for key in ("affinity", "affinity_mask"))
    logits = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    loss, _ = AffinityLoss([(0, 0, 1), (0, 1, 0), (1, 0, 0)], BCELoss(size_average=False))(logits, ids, mask)
    loss.backward()
    touched = logits.grad[0, 0, 0, 0].numpy() != 0  # the edge of voxel x to x - 1
    np.testing.assert_array_equal(touched, [0, 1, 1, 0, 0, 0, 1, 1, 1])


def test_the_mask_of_what_is_not_known_joins_those_that_there_are():
    seg = np.full(SHAPE, -1)
    seg[:, :4] = 3
    msk = np.zeros(SHAPE, np.float32)
    msk[:, 2:6] = 0.5
    volume = compact("it", {"img": np.zeros(SHAPE, np.uint8), "seg": seg, "msk_train": msk}, ("seg",), "train")
    expected = np.where(seg == -1, 0, msk)
    np.testing.assert_array_equal(volume["seg_msk"][0], expected)
    with pytest.raises(InputError, match="-2"):
        compact("it", {"img": np.zeros(SHAPE, np.uint8), "seg": seg * 2}, ("seg",), "train")


def test_instances_are_eroded_and_boundaries_widened_by_flags():
    seg = np.ones(SHAPE, np.uint32)
    seg[:, :, 5:] = 2
    plain = drawn({"seg": seg}, {"affinity": 3, "boundary": 1})
    np.testing.assert_array_equal(plain["affinity"][0], seg)
    np.testing.assert_array_equal(plain["boundary"][0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0])
    changed = drawn({"seg": seg}, {"affinity": 3, "boundary": 1}, label_erosion=2, border_dilation=1)
    np.testing.assert_array_equal(changed["affinity"][0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 2, 2])
    np.testing.assert_array_equal(changed["boundary"][0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0])
    assert changed["boundary"].dtype == np.uint8


def test_pieces_of_an_instance_that_a_mask_parts_get_ids_of_their_own():
    seg, msk = np.full(SHAPE, 7, np.uint32), np.ones(SHAPE, np.uint8)
    msk[:, :, 4] = 0
    ids = drawn({"seg": seg, "msk": msk}, {"affinity": 3}, label_components=True)["affinity"][0]
    assert len({ids[0, 0, 0], ids[0, 0, -1]} - {0}) == 2
    assert drawn({"seg": seg, "msk": msk}, {"affinity": 3})["affinity"].max() == 7


def test_a_soft_label_stays_between_0_and_1():
    syn = np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    sample = drawn({"syn": syn, "soft": ("syn",)}, {"synapse": 1})
    assert sample["synapse"].dtype == np.float32
    np.testing.assert_array_equal(sample["synapse"][0], syn)
    out = {"synapse": np.empty(PATCH, np.float32)}
    data = {"it": {"img": np.zeros(SHAPE, np.uint8), "syn": syn, "soft": ("syn",)}}
    spec = basic.get_spec({"input": PATCH}, {"synapse": (1, *SHAPE)})
    sampler = basic.Sampler(data, spec)
    assert sampler.layout["synapse"] == (PATCH, np.float32)
    assert sampler(np.random.default_rng(0), out)["synapse"] is out["synapse"]
    np.testing.assert_array_equal(out["synapse"][0], syn)


def test_beside_a_soft_volume_others_are_floats_too():
    hard = {"img": np.zeros(SHAPE, np.uint8), "syn": np.full(SHAPE, 3, np.uint8)}
    soft = {**hard, "syn": np.full(SHAPE, 51, np.uint8), "soft": ("syn",)}
    none = {"img": np.zeros(SHAPE, np.uint8)}
    spec = basic.get_spec({"input": PATCH}, {"synapse": (1, *SHAPE)})
    sampler = basic.Sampler({"hard": hard, "soft": soft, "none": none}, spec)
    seen = {}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sample = sampler(rng)
        assert sample["synapse"].dtype == np.float32
        seen[sampler.which(np.random.default_rng(seed))] = float(sample["synapse"].max())
    assert seen == pytest.approx({"hard": 1, "soft": 0.2, "none": 0})


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
def test_a_soft_label_outside_0_to_1_is_refused(value):
    with pytest.raises(InputError, match="soft target"):
        drawn({"syn": np.full(SHAPE, value, np.float32), "soft": ("syn",)}, {"synapse": 1})
