"""Class balancing of binary targets: both classes of a channel get the same total weight, however rare one is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepem.loss.voxel import averaged


def class_sums(target: Tensor, weight: Tensor) -> Tensor:
    """Return the summed weight of the positive and of the negative voxels of every channel: (2, C, 1, 1, 1)."""
    sums = [values.sum((0, 2, 3, 4)) for values in (weight * target, weight * (1 - target))]
    return torch.stack(sums)[..., None, None, None]


def balanced(target: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Return the weight, with each class multiplied by the fraction of the other class.

    A channel with only one class keeps its weight.

    Args:
        target: 0 or 1, (N, C, Z, Y, X).
        weight: Weight of every voxel, (N, C, Z, Y, X).
        classes: The result of `class_sums`.
    """
    positive, negative = classes
    share = torch.where(target > 0, negative, positive) / (positive + negative)
    return torch.where((positive > 0) & (negative > 0), weight * share, weight)


class BalancedLoss(nn.Module):
    """A voxel-wise criterion with class balancing: each channel's mask is balanced between its classes over the batch.

    Args:
        criterion: Called with (logits, target, mask). It must return (sum, count), so create it with
            ``size_average=False``.
        size_average: Divide the loss by the count.
    """

    class_balancing = True

    def __init__(self, criterion: nn.Module, size_average: bool = False) -> None:
        super().__init__()
        self.criterion, self.size_average = criterion, size_average

    def forward(
        self, input: Tensor, target: Tensor, mask: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (loss, count) of logits (N, C, Z, Y, X).

        Args:
            input: Logits.
            target: Positive where it is above 0.
            mask: Where the loss counts; one channel, or one per channel of the target.
            classes: The result of the method `classes`, summed over the whole batch, if this call gets a part of it.
        """
        with torch.no_grad():
            weight = mask.float().expand(target.shape)
            sums = self.classes(target, mask) if classes is None else classes
            weight = balanced(target > 0, weight, sums)
        loss, count = self.criterion(input, target, weight)
        return averaged(loss, count) if self.size_average else (loss, count)

    @torch.no_grad()
    def classes(self, target: Tensor, mask: Tensor) -> Tensor:
        """Return the summed mask of the positive and of the negative voxels of every channel: (2, C, 1, 1, 1)."""
        return class_sums((target > 0).float(), mask.float().expand(target.shape))
