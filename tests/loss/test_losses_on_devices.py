"""Every criterion gives on every device, in float32 and from half precision, what it gives in float64 on a CPU."""

from __future__ import annotations

import pytest
import torch
from lab import DEVICES

from deepem.loss import AffinityLoss, BalancedLoss, BCELoss, MSELoss, SemanticLoss

EDGES = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, -3), (2, -1, 0))
SHAPE = (2, 5, 4, 12, 10)

CRITERIA = {
    "BCELoss": lambda: BCELoss(size_average=False),
    "BCELoss, smoothed": lambda: BCELoss(margin0=0.1, margin1=0.2),
    "BCELoss, settled": lambda: BCELoss(size_average=False, margin0=0.1, margin1=0.2, inverse=False),
    "MSELoss": lambda: MSELoss(margin0=0.1, margin1=0.2),
    "BalancedLoss": lambda: BalancedLoss(BCELoss(size_average=False), size_average=True),
    "AffinityLoss": lambda: AffinityLoss(EDGES, BCELoss(size_average=False)),
    "AffinityLoss, balanced": lambda: AffinityLoss(EDGES, MSELoss(size_average=False), True, class_balancing=True),
    "SemanticLoss": lambda: SemanticLoss(5, (1, 2, 3, 4, 5), size_average=True),
    "SemanticLoss, balanced": lambda: SemanticLoss(5, class_balancing=True),
}


def batch_for(name):
    """Logits in thirty-seconds, which half precision holds exactly, a target and a soft mask with zeros."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randint(-96, 97, SHAPE, generator=rng) / 32
    single = (SHAPE[0], 1, *SHAPE[2:])
    if name.startswith("Affinity"):
        target = torch.randint(0, 4, single, generator=rng)
    elif name.startswith("Semantic"):
        target = torch.randint(0, 5, single, generator=rng)
    else:
        target = torch.randint(0, 2, SHAPE, generator=rng).float()
    mask = torch.rand(single, generator=rng) * (torch.rand(single, generator=rng) > 0.3)
    return logits, target, mask


def outcome(name, device, dtype):
    """Loss, count and the gradient of the logits."""
    logits, target, mask = (part.to(device) for part in batch_for(name))
    logits = logits.to(dtype).requires_grad_()
    loss, count = CRITERIA[name]()(logits, target, mask)
    loss.backward()
    return loss.detach().cpu(), count.cpu(), logits.grad.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bf16", "fp16"])
@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("name", CRITERIA)
def test_a_loss_is_the_same_on_every_device(name, where, dtype):
    want, got = outcome(name, "cpu", torch.float64), outcome(name, where, dtype)
    torch.testing.assert_close(got[0].double(), want[0], rtol=1e-5, atol=1e-6)
    assert int(got[1]) == int(want[1])
    exact = dtype == torch.float32  # gradients of half-precision logits are rounded to theirs
    torch.testing.assert_close(got[2].double(), want[2], rtol=1e-4 if exact else 1e-2, atol=1e-6 if exact else 1e-3)
