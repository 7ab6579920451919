"""The loss of classes that exclude each other, against one voxel at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.loss import SemanticLoss, criterion
from deepem.tasks import choose

CLASSES, SIZE = 3, (2, 3, 4)


def batch(seed: int = 0, masked: float = 0.3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, CLASSES, *SIZE)).astype(np.float32)
    target = rng.integers(0, CLASSES, (2, 1, *SIZE)).astype(np.uint8)
    mask = (rng.random((2, 1, *SIZE)) * (rng.random((2, 1, *SIZE)) >= masked)).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(target), torch.from_numpy(mask)


def reference(logits, target, mask, weights, balanced: bool) -> tuple[float, int]:
    """In Python floats."""
    rows = [(x, int(t), w) for x, t, w in zip(
        logits.movedim(1, -1).reshape(-1, CLASSES).tolist(), target.flatten(), mask.flatten().tolist(), strict=True
    )]  # fmt: skip
    sums = [sum(w for _, t, w in rows if t == c) for c in range(CLASSES)]
    share = [1.0] * CLASSES
    if balanced:
        total = sum(1 / s for s in sums if s)
        share = [1 / s / total if s else 0 for s in sums]
    loss = sum(
        w * (weights or [1] * CLASSES)[t] * share[t] * (math.log(sum(map(math.exp, x))) - x[t]) for x, t, w in rows
    )
    return loss, sum(w > 0 for _, _, w in rows)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    masked=st.sampled_from([0, 0.3, 0.9, 1]),
    weights=st.sampled_from([(), (1, 0.5, 2), (0, 0, 1)]),
    balanced=st.booleans(),
    average=st.booleans(),
)
def test_it_is_the_cross_entropy_of_a_softmax(seed, masked, weights, balanced, average):
    logits, target, mask = batch(seed, masked)
    loss, count = reference(logits, target, mask, weights, balanced)
    found, counted = SemanticLoss(CLASSES, weights, average, balanced)(logits, target, mask)
    if average:
        loss, count = (loss / count, 1) if count else (0, 0)
    assert float(found) == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert int(counted) == count


@pytest.mark.parametrize("target_type", [torch.uint8, torch.float32, torch.int64])
def test_what_is_masked_has_no_gradient_whatever_its_label(target_type):
    logits, target, mask = batch()
    logits.requires_grad_()
    target = torch.where(mask > 0, target, 255).to(target_type)
    loss, _ = SemanticLoss(CLASSES)(logits, target, mask)
    loss.backward()
    none = (mask == 0).expand_as(logits)
    assert (logits.grad[none] == 0).all()
    assert (logits.grad[~none] != 0).all()


def test_an_empty_mask_gives_a_loss_that_is_connected():
    logits, target, mask = batch()
    logits.requires_grad_()
    loss, count = SemanticLoss(CLASSES, class_balancing=True)(logits, target, torch.zeros_like(mask))
    loss.backward()
    assert (float(loss), int(count)) == (0, 0)
    assert (logits.grad == 0).all()


def test_arguments_stay_as_they_are():
    given = batch()
    kept = [tensor.clone() for tensor in given]
    SemanticLoss(CLASSES, (1, 2, 3), True, True)(*given)
    assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))


def test_two_classes_are_balanced_as_affinities_are():
    """Each of P and N voxels gets N / (P + N), or P / (P + N), so that both classes weigh alike."""
    target = torch.tensor([0, 0, 0, 1]).reshape(1, 1, 1, 1, 4)
    loss, count = SemanticLoss(2, class_balancing=True)(
        torch.zeros(1, 2, 1, 1, 4), target, torch.ones_like(target).float()
    )
    assert float(loss) == pytest.approx((3 * 1 / 4 + 1 * 3 / 4) * math.log(2))
    assert int(count) == 4


def test_parts_of_a_batch_are_balanced_as_the_whole():
    logits, target, mask = batch()
    measure = SemanticLoss(CLASSES, class_balancing=True)
    whole = measure(logits, target, mask)[0]
    classes = sum(measure.classes(target[n : n + 1], mask[n : n + 1]) for n in range(2))
    parts = [measure(logits[n : n + 1], target[n : n + 1], mask[n : n + 1], classes)[0] for n in range(2)]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)


def test_half_precision_is_computed_in_full():
    logits, target, mask = batch()
    half = logits.bfloat16()
    assert torch.equal(
        SemanticLoss(CLASSES)(half, target, mask)[0], SemanticLoss(CLASSES)(half.float(), target, mask)[0]
    )


def test_the_criterion_of_a_row_has_its_weights():
    (row,) = choose(["sem"], channels={"sem": 3}, class_weights={"sem": (1, 2, 0)})
    made = criterion(row, size_average=True, class_balancing=True, margin0=0.3, loss="MSELoss")
    assert isinstance(made, SemanticLoss)
    assert (made.channels, made.class_weights, made.size_average, made.class_balancing) == (3, (1, 2, 0), True, True)


def test_numbers_of_channels_and_weights_must_agree():
    with pytest.raises(ValueError, match="class_weights: got 2, wants 3"):
        SemanticLoss(3, (1, 2))
    with pytest.raises(ValueError, match="input: got 3 channels, wants 4"):
        SemanticLoss(4)(*batch())
