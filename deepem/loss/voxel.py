"""Voxel-wise criteria with masks and margins.

A criterion is called with (input, target, mask), all (N, C, Z, Y, X), and returns (loss, count). A mask of one channel
applies to every channel::

    loss   sum(mask * error); part of the graph even if the mask is empty
    count  number of voxels with mask > 0

With size_average it returns (loss / count, 1), or (0, 0) if the mask is empty. The mean over many batches is
sum(loss) / sum(count). Counts stay on the device, so these criteria never synchronise with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def full_precision(values: Tensor) -> Tensor:
    """Convert half precision to float32; return float32 and float64 unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def averaged(loss: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a sum over voxels to (mean, 1), or to (0, 0) if the count is 0."""
    return loss / count.clamp(min=1), count.clamp(max=1)


class _MaskedLoss(nn.Module):
    """Base class of both criteria: handles dtypes, margins, the count and the average."""

    def __init__(self, size_average: bool, margin0: float, margin1: float) -> None:
        super().__init__()
        self.size_average = size_average
        self.margin0 = min(max(margin0, 0.0), 1.0)
        self.margin1 = min(max(margin1, 0.0), 1.0)

    def forward(self, input: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loss, count) of one head; see the module docstring."""
        input = full_precision(input)
        target, mask = target.to(input.dtype), mask.to(input.dtype).expand_as(input)
        count = torch.count_nonzero(mask > 0)
        loss = self.total(input, target, mask)
        return averaged(loss, count) if self.size_average else (loss, count)

    def total(self, input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """sum(mask * error)."""
        raise NotImplementedError

    def without_settled(self, mask: Tensor, probability: Tensor, target: Tensor) -> Tensor:
        """Return the mask with 0 where the prediction is within the margin of its target.

        That is p >= 1 - margin1 for target 1, and p <= margin0 for target 0.
        """
        if not (self.margin0 or self.margin1):
            return mask
        settled = (target == 1) & (probability >= 1 - self.margin1)
        settled |= (target == 0) & (probability <= self.margin0)
        return mask.masked_fill(settled, 0)


class BCELoss(_MaskedLoss):
    """Binary cross-entropy of logits.

    Args:
        size_average: Divide by the number of voxels with mask > 0.
        margin0: Margin of target 0; clipped to [0, 1].
        margin1: Margin of target 1.
        inverse: If true, margins smooth the labels: 1 becomes 1 - margin1, 0 becomes margin0, and soft targets do not
            change. If false, voxels whose probability is within the margin of their target add nothing to the sum but
            still count.
        ignored: Other keywords are ignored, so that all criteria can be created with the same ones.
    """

    def __init__(
        self,
        size_average: bool = True,
        margin0: float = 0,
        margin1: float = 0,
        inverse: bool = True,
        **ignored: object,
    ) -> None:
        super().__init__(size_average, margin0, margin1)
        self.inverse = inverse

    def total(self, input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """sum(mask * bce(sigmoid(input), target))."""
        if not self.inverse:
            mask = self.without_settled(mask, input.detach().sigmoid(), target)
        elif self.margin0 or self.margin1:
            one, zero = target == 1, target == 0
            target = target.masked_fill(one, 1 - self.margin1).masked_fill(zero, self.margin0)
        return F.binary_cross_entropy_with_logits(input, target, mask, reduction="sum")


class MSELoss(_MaskedLoss):
    """Squared error of probabilities.

    Args:
        size_average: Divide by the number of voxels with mask > 0.
        margin0: Voxels of target 0 with probability <= margin0 add nothing to the sum but still count.
        margin1: Likewise for voxels of target 1 with probability >= 1 - margin1.
        logits: Whether the input is logits (otherwise probabilities).
        ignored: Other keywords are ignored, so that all criteria can be created with the same ones.
    """

    def __init__(
        self,
        size_average: bool = True,
        margin0: float = 0,
        margin1: float = 0,
        logits: bool = True,
        **ignored: object,
    ) -> None:
        super().__init__(size_average, margin0, margin1)
        self.logits = logits

    def total(self, input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """sum(mask * (probability - target)^2)."""
        probability = input.sigmoid() if self.logits else input
        mask = self.without_settled(mask, probability.detach(), target)
        return (mask * (probability - target).square()).sum()
