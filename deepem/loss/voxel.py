"""Voxel-wise criteria with masks and margins.

Each is called with (input, target, mask), all (N, C, Z, Y, X), where a mask of one channel holds for every
channel, and gives (loss, count)::

    loss   sum(mask * error), connected to the graph also where the mask is empty
    count  number of voxels with mask > 0

or, with size_average, (loss / count, 1), and (0, 0) where the mask is empty. The mean over many batches is
sum(loss) / sum(count). No count is read back from the device here, so nothing waits for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def full_precision(values: Tensor) -> Tensor:
    """The values in float32 where they come in half precision; float32 and float64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def averaged(loss: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """A sum over voxels as (mean, 1), or (0, 0) where there are none."""
    return loss / count.clamp(min=1), count.clamp(max=1)


class _MaskedLoss(nn.Module):
    """What the two criteria share: types, margins as a mask, the count and the average."""

    def __init__(self, size_average: bool, margin0: float, margin1: float) -> None:
        super().__init__()
        self.size_average = size_average
        self.margin0 = min(max(margin0, 0.0), 1.0)
        self.margin1 = min(max(margin1, 0.0), 1.0)

    def forward(self, input: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, count) of one head; see the module."""
        input = full_precision(input)
        target, mask = target.to(input.dtype), mask.to(input.dtype).expand_as(input)
        count = torch.count_nonzero(mask > 0)
        loss = self.total(input, target, mask)
        return averaged(loss, count) if self.size_average else (loss, count)

    def total(self, input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """sum(mask * error)."""
        raise NotImplementedError

    def without_settled(self, mask: Tensor, probability: Tensor, target: Tensor) -> Tensor:
        """The mask, 0 where the prediction is within its margin: p >= 1 - margin1 at 1, p <= margin0 at 0."""
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
        inverse: Margins smooth the labels: 1 becomes 1 - margin1, 0 becomes margin0, soft targets stay. Else
            voxels with a probability within the margin of their target drop out of the sum, not of the count.
        ignored: Further keywords, so that all criteria can be made with the same ones.
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
        margin0: Voxels of target 0 with probability <= margin0 drop out of the sum, and stay in the count.
        margin1: Voxels of target 1 with probability >= 1 - margin1 drop out likewise.
        logits: The input is logits, else probabilities.
        ignored: Further keywords, so that all criteria can be made with the same ones.
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
