"""The affinity loss against a slow, obvious reference and against recorded figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepem.loss
from deepem.loss import AffinityLoss, BCELoss, MSELoss

SHAPE = (4, 5, 6)
NEAREST = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
FAR = ((0, 0, -3), (2, -1, 0), (-1, 2, -3), (-9, 0, 0))


def batch(seed: int = 0, channels: int = 3, soft: bool = True) -> tuple[torch.Tensor, ...]:
    """Logits (2, E, Z, Y, X), ids 0 to 3 and a mask with zeros, both (2, 1, Z, Y, X)."""
    rng = np.random.default_rng(seed)
    mask = rng.random((2, 1, *SHAPE)) * (rng.random((2, 1, *SHAPE)) > 0.3)
    return (
        torch.from_numpy(rng.normal(0, 2, (2, channels, *SHAPE)).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 4, (2, 1, *SHAPE))),
        torch.from_numpy((mask if soft else mask > 0).astype(np.float32)),
    )


def reference(edges, logits, ids, mask, average=False, balanced=False) -> tuple[float, int]:
    """One voxel and partner at a time; binary cross-entropy, in Python floats."""
    total, count = 0.0, 0
    for channel, edge in enumerate(edges):
        rows = []
        for n, z, y, x in np.ndindex(len(logits), *SHAPE):
            v, u = (n, 0, z, y, x), (n, 0, z - edge[0], y - edge[1], x - edge[2])
            if any(not 0 <= at < size for at, size in zip(u[2:], SHAPE, strict=True)):
                continue
            same = bool(ids[v] == ids[u] and ids[v] != 0)
            p = 1 / (1 + np.exp(-float(logits[n, channel, z, y, x])))
            rows.append((same, float(mask[v]) * float(mask[u]), -np.log(p if same else 1 - p)))
        count += sum(w > 0 for _, w, _ in rows)
        positive, negative = (sum(w for same, w, _ in rows if same is kind) for kind in (True, False))
        both = balanced and positive > 0 and negative > 0
        for same, w, error in rows:
            share = (negative if same else positive) / (positive + negative) if both else 1
            total += share * w * error
    if average:
        return (total / count, 1) if count else (0.0, 0)
    return total, count


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([NEAREST, FAR]))
def test_equal_to_a_loop_over_voxels(seed, soft, average, balanced, edges):
    data = batch(seed, len(edges), soft)
    loss, count = AffinityLoss(edges, BCELoss(size_average=False), average, balanced)(*data)
    value, number = reference(edges, *data, average, balanced)
    assert loss.item() == pytest.approx(value, rel=2e-5)
    assert count.item() == number


def recorded() -> list[dict]:
    file = Path(__file__).resolve().parents[3] / "shared/parity/losses.json"
    if not file.is_file():
        return []
    cases = json.loads(file.read_text())
    edges = cases["edges"]
    return [{**case, "edges": edges[case["edges"]], "set": case["edges"]} for case in cases["affinity"]]


@pytest.mark.parametrize("case", recorded(), ids=lambda c: f"{c['set']}-{c['inner']}-{c['mask']}")
def test_equal_to_recorded_figures(shared, case):
    with np.load(shared / "parity/losses.npz") as arrays:
        names = (f"logits_{case['set']}", case["label"], f"mask_{case['mask']}")
        data = [torch.from_numpy(arrays[f"aff/{name}"]) for name in names]
    inner = getattr(deepem.loss, case["inner"])(**case["inner_kw"])
    loss, count = AffinityLoss(case["edges"], inner, case["size_average"], case["class_balancing"])(*data)
    assert loss.item() == pytest.approx(case["value"], rel=1e-5)
    assert count.item() == case["nmsk"]


CRITERIA = [
    AffinityLoss(edges, inner, average, balanced)
    for edges, inner, average, balanced in (
        (NEAREST, BCELoss(size_average=False), False, False),
        (NEAREST, BCELoss(size_average=False, margin0=0.1, margin1=0.1), True, True),
        (FAR, BCELoss(size_average=False, margin0=0.1, margin1=0.1, inverse=False), False, True),
        (FAR, MSELoss(size_average=False, margin0=0.1, margin1=0.1), True, False),
    )
]


@pytest.mark.parametrize("criterion", CRITERIA)
class TestEveryCriterion:
    def test_arguments_are_unchanged(self, criterion):
        data = batch(channels=len(criterion.edges))
        before = [array.clone() for array in data]
        criterion(data[0].requires_grad_(), *data[1:])[0].backward()
        assert all(torch.equal(a, b) for a, b in zip(data, before, strict=True))

    def test_gradient_is_exactly_zero_where_a_voxel_or_its_partner_is_masked(self, criterion):
        logits, ids, mask = batch(channels=len(criterion.edges))
        criterion(logits.requires_grad_(), ids, mask)[0].backward()
        assert (logits.grad != 0).any()
        for channel, edge in enumerate(criterion.edges):
            for n, *v in np.ndindex(2, *SHAPE):
                u = [a - d for a, d in zip(v, edge, strict=True)]
                inside = all(0 <= a < size for a, size in zip(u, SHAPE, strict=True))
                if not inside or mask[n, 0, v[0], v[1], v[2]] == 0 or mask[n, 0, u[0], u[1], u[2]] == 0:
                    assert logits.grad[n, channel, v[0], v[1], v[2]] == 0

    def test_an_empty_mask_gives_zero_and_a_backward_pass(self, criterion):
        logits, ids, mask = batch(channels=len(criterion.edges))
        loss, count = criterion(logits.requires_grad_(), ids, torch.zeros_like(mask))
        loss.backward()
        assert (loss.item(), count.item()) == (0, 0)
        assert (logits.grad == 0).all()

    def test_half_precision_input_is_computed_in_float32(self, criterion):
        logits, ids, mask = batch(channels=len(criterion.edges))
        half = logits.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = criterion(half, ids, mask)
        assert loss.dtype == torch.float32
        assert loss.item() == criterion(half.float(), ids, mask)[0].item()


@pytest.mark.parametrize("balanced", [False, True])
def test_gradient_is_that_of_the_value(balanced):
    logits, ids, mask = batch(channels=len(FAR))
    criterion = AffinityLoss(FAR, BCELoss(size_average=False), True, balanced)
    assert torch.autograd.gradcheck(
        lambda x: criterion(x, ids, mask.double())[0], logits.double().requires_grad_(), fast_mode=True
    )


def test_background_has_no_positive_edge():
    ids = torch.tensor([0, 0, 7, 7]).reshape(1, 1, 1, 1, 4)
    sure = torch.tensor([0.0, -20, -20, 20]).reshape(1, 1, 1, 1, 4)
    loss, count = AffinityLoss([(0, 0, 1)], BCELoss(size_average=False))(sure, ids, torch.ones(ids.shape))
    assert loss.item() < 1e-6
    assert count.item() == 3


def test_the_opposite_edge_stores_the_same_affinities_at_the_partner():
    logits, ids, mask = batch(channels=1)
    for edge in FAR[:3]:
        forth = AffinityLoss([edge], BCELoss(size_average=False))(logits, ids, mask)[0]
        back = AffinityLoss([[-d for d in edge]], BCELoss(size_average=False))(
            torch.roll(logits, [-d for d in edge], (2, 3, 4)), ids, mask
        )[0]
        assert forth.item() == pytest.approx(back.item(), rel=1e-5)


def test_an_edge_longer_than_the_patch_counts_nothing():
    logits, ids, mask = batch(channels=2)
    for edge in ((4, 0, 0), (0, 0, -6), (50, 50, 50)):
        loss, count = AffinityLoss([edge, edge], BCELoss(size_average=False), True)(logits, ids, mask)
        assert (loss.item(), count.item()) == (0, 0)


def test_large_ids_are_told_apart():
    ids = torch.tensor([2**40, 2**40 + 1, 2**40 + 1]).reshape(1, 1, 1, 1, 3)
    sure = torch.tensor([0.0, -20, 20]).reshape(1, 1, 1, 1, 3)
    assert AffinityLoss([(0, 0, 1)], BCELoss(size_average=False))(sure, ids, torch.ones(ids.shape))[0] < 1e-6


def test_what_does_not_fit_together_is_refused():
    logits, ids, mask = batch(channels=2)
    with pytest.raises(ValueError, match="2 channels, wants 3"):
        AffinityLoss(NEAREST, BCELoss(size_average=False))(logits, ids, mask)
    with pytest.raises(ValueError, match="size_average"):
        AffinityLoss(NEAREST, BCELoss())


@pytest.mark.slow
def test_it_compiles_as_one_graph():
    """Nothing in it waits for a number from the device."""
    logits, ids, mask = batch(channels=len(FAR))
    inner = BCELoss(size_average=False, margin0=0.1, margin1=0.1, inverse=False)
    eager = AffinityLoss(FAR, inner, True, True)
    compiled = torch.compile(eager, backend="eager", fullgraph=True)
    assert compiled(logits, ids, mask)[0].item() == eager(logits, ids, mask)[0].item()
