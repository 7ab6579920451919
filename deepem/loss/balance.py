"""Class balancing of targets that are 0 or 1: both classes of a channel weigh the same, however rare one is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepem.loss.voxel import averaged


def class_sums(target: Tensor, weight: Tensor) -> Tensor:
    """The summed weight of the positive and the negative voxels of every channel: (2, C, 1, 1, 1)."""
    sums = [values.sum((0, 2, 3, 4)) for values in (weight * target, weight * (1 - target))]
    return torch.stack(sums)[..., None, None, None]


def balanced(target: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """The weight, that of each class times the share of the other; a channel with one class stays as it is.

    Args:
        target: 0 or 1, (N, C, Z, Y, X).
        weight: Of every voxel, (N, C, Z, Y, X).
        classes: From `class_sums`.
    """
    positive, negative = classes
    share = torch.where(target > 0, negative, positive) / (positive + negative)
    return torch.where((positive > 0) & (negative > 0), weight * share, weight)


class BalancedLoss(nn.Module):
    """A voxel-wise criterion whose mask is balanced between the classes of each channel, over the batch.

    Args:
        criterion: Called with (logits, target, mask); it gives (sum, count), so it is made with size_average=False.
        size_average: Divide by the count.
    """

    class_balancing = True

    def __init__(self, criterion: nn.Module, size_average: bool = False) -> None:
        super().__init__()
        self.criterion, self.size_average = criterion, size_average

    def forward(
        self, input: Tensor, target: Tensor, mask: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(loss, count) of logits (N, C, Z, Y, X).

        Args:
            input: Logits.
            target: Positive where it is above 0.
            mask: Where the loss counts, of one channel or of all.
            classes: From `classes`, summed over all parts of a batch, where this is one of them.
        """
        with torch.no_grad():
            weight = mask.float().expand(target.shape)
            sums = self.classes(target, mask) if classes is None else classes
            weight = balanced(target > 0, weight, sums)
        loss, count = self.criterion(input, target, weight)
        return averaged(loss, count) if self.size_average else (loss, count)

    @torch.no_grad()
    def classes(self, target: Tensor, mask: Tensor) -> Tensor:
        """The summed mask of the positive and the negative voxels of every channel: (2, C, 1, 1, 1)."""
        return class_sums((target > 0).float(), mask.float().expand(target.shape))
