"""Voxel-wise losses against a slow, obvious reference and against recorded figures."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepem.loss
from deepem.loss import BCELoss, MSELoss

SHAPE = (2, 2, 3, 4, 5)


def batch(seed: int = 0, mask: str = "soft") -> tuple[torch.Tensor, ...]:
    """Logits, targets of 0, 1 and in between, and a mask with zeros."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, SHAPE)
    target = rng.choice([0, 1, 0.25], SHAPE, p=[0.45, 0.45, 0.1])
    masks = {
        "ones": np.ones(SHAPE),
        "zero": np.zeros(SHAPE),
        "binary": rng.integers(0, 2, SHAPE),
        "soft": rng.random(SHAPE) * rng.integers(0, 2, SHAPE),
    }
    return tuple(torch.as_tensor(np.asarray(a, dtype=np.float32)) for a in (logits, target, masks[mask]))


def reference(name: str, kw: dict, logits, target, mask) -> tuple[float, int]:
    """One voxel at a time, in Python floats."""
    m0, m1 = (min(max(kw.get(k, 0), 0), 1) for k in ("margin0", "margin1"))
    smooth = name == "BCELoss" and kw.get("inverse", True)
    total, count = 0.0, 0
    for x, t, w in torch.stack([logits, target, mask]).flatten(1).T.tolist():
        count += w > 0
        p = 1 / (1 + math.exp(-x))
        if smooth:
            t = 1 - m1 if t == 1 else m0 if t == 0 else t
        elif (m0 or m1) and ((t == 1 and p >= 1 - m1) or (t == 0 and p <= m0)):
            w = 0
        if name == "BCELoss":
            error = -t * math.log(p) - (1 - t) * math.log(1 - p)
        else:
            error = (p - t) ** 2
        total += w * error
    if kw.get("size_average", True):
        return (total / count, 1) if count else (0.0, 0)
    return total, count


@pytest.mark.parametrize("name", ["BCELoss", "MSELoss"])
@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.sampled_from(["ones", "zero", "binary", "soft"]),
    st.booleans(),
    st.sampled_from([0, 0.1, 0.4, 1, 1.5, -0.5]),
    st.sampled_from([0, 0.2, 0.45, 1, 2, -1]),
    st.booleans(),
)
def test_equal_to_a_loop_over_voxels(name, seed, mask, average, margin0, margin1, inverse):
    kw = {"size_average": average, "margin0": margin0, "margin1": margin1, "inverse": inverse}
    data = batch(seed, mask)
    loss, count = getattr(deepem.loss, name)(**kw)(*data)
    value, number = reference(name, kw, *data)
    assert loss.item() == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert count.item() == number


def recorded() -> list[dict]:
    file = Path(__file__).resolve().parents[3] / "shared/parity/losses.json"
    return json.loads(file.read_text())["bce_mse"] if file.is_file() else []


@pytest.mark.parametrize("case", recorded(), ids=lambda c: f"{c['loss']}-{c['target']}-{c['mask']}")
def test_equal_to_recorded_figures(shared, case):
    with np.load(shared / "parity/losses.npz") as arrays:
        key = "logits" if case["input"] == "logits" else "sigmoid_logits"
        names = (key, case["target"], f"mask_{case['mask']}")
        data = [torch.from_numpy(arrays[f"base/{name}"]) for name in names]
    loss, count = getattr(deepem.loss, case["loss"])(**case["kw"])(*data)
    assert loss.item() == pytest.approx(case["value"], rel=1e-5)
    assert count.item() == case["nmsk"]


CRITERIA = [
    cls(size_average=average, margin0=margin, margin1=margin, inverse=inverse)
    for cls, average, margin, inverse in product((BCELoss, MSELoss), (True, False), (0, 0.3), (True, False))
]


@pytest.mark.parametrize("criterion", CRITERIA)
class TestEveryCriterion:
    def test_arguments_are_unchanged(self, criterion):
        data = batch()
        before = [array.clone() for array in data]
        criterion(data[0].requires_grad_(), *data[1:])[0].backward()
        assert all(torch.equal(a, b) for a, b in zip(data, before, strict=True))

    def test_gradient_is_exactly_zero_where_masked(self, criterion):
        logits, target, mask = batch()
        criterion(logits.requires_grad_(), target, mask)[0].backward()
        assert (logits.grad[mask == 0] == 0).all()
        assert (logits.grad[mask > 0] != 0).any()

    def test_an_empty_mask_gives_zero_and_a_backward_pass(self, criterion):
        logits, target, mask = batch(mask="zero")
        loss, count = criterion(logits.requires_grad_(), target, mask)
        loss.backward()
        assert (loss.item(), count.item()) == (0, 0)
        assert (logits.grad == 0).all()

    def test_half_precision_input_is_computed_in_float32(self, criterion):
        logits, target, mask = batch()
        half = logits.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = criterion(half, target, mask)
        assert loss.dtype == torch.float32
        assert loss.item() == criterion(half.float(), target, mask)[0].item()

    def test_types_and_channels_of_the_mask_do_not_matter(self, criterion):
        logits, target, mask = batch(mask="binary")
        mask = mask[:, :1]
        wide = criterion(logits, target.round(), mask.expand(SHAPE))
        narrow = criterion(logits, target.round().to(torch.uint8), mask.bool())
        assert [v.item() for v in wide] == [v.item() for v in narrow]


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c.margin0 == 0 or getattr(c, "inverse", False)])
def test_gradient_is_that_of_the_value(criterion):
    logits, target, mask = (array.double() for array in batch())
    assert torch.autograd.gradcheck(lambda x: criterion(x, target, mask)[0], logits.requires_grad_())


def test_extreme_logits_stay_finite():
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    target = torch.tensor([0.0, 1.0, 1.0, 0.0])
    loss, _ = BCELoss(size_average=False)(logits, target, torch.ones(4))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert logits.grad.tolist() == [0, 0, -1, 1]


def test_probabilities_in_place_of_logits():
    logits, target, mask = batch()
    given = MSELoss(logits=False)(logits.sigmoid(), target, mask)[0]
    assert given.item() == pytest.approx(MSELoss()(logits, target, mask)[0].item())


def test_further_keywords_are_ignored():
    assert BCELoss(logits=True, whatever=1).size_average
    assert MSELoss(inverse=False, whatever=1).size_average
