"""The criterion of mutually exclusive classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepem.loss.voxel import averaged, full_precision


class SemanticLoss(nn.Module):
    """Softmax cross-entropy over channels; returns (loss, count) as in `deepem.loss.voxel`::

        loss   sum over voxels of mask * weight[class] * -log softmax(input)[class]
        count  number of voxels with mask > 0

    Labels where the mask is 0 are ignored, even class numbers without a channel; the gradient there is exactly 0.

    Args:
        channels: The number of classes.
        class_weights: One weight per class; empty for weights of 1.
        size_average: Divide the loss by the count.
        class_balancing: Weight classes so that every class that is present has the same total weight,
            1 / sum_c (1 / n_c) for n_c voxels of class c; `AffinityLoss` does the same with two classes. Class weights
            are multiplied in afterwards.
    """

    def __init__(
        self,
        channels: int,
        class_weights: Sequence[float] = (),
        size_average: bool = False,
        class_balancing: bool = False,
    ) -> None:
        super().__init__()
        if class_weights and len(class_weights) != channels:
            raise ValueError(f"class_weights: got {len(class_weights)}, wants {channels}, one per class")
        self.channels = channels
        self.class_weights = tuple(class_weights)
        self.size_average = size_average
        self.class_balancing = class_balancing

    def forward(
        self, input: Tensor, target: Tensor, mask: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (loss, count) of logits (N, C, Z, Y, X).

        Targets are classes 0 to C - 1; target and mask are (N, 1, Z, Y, X).

        Args:
            input: Logits.
            target: Classes.
            mask: Weight of each voxel; 0 where the loss does not count.
            classes: The result of the method `classes`, summed over the whole batch, if this call gets a part of it.
        """
        if input.shape[1] != self.channels:
            raise ValueError(f"input: got {input.shape[1]} channels, wants {self.channels}, one per class")
        input = full_precision(input)
        with torch.no_grad():
            mask = mask.to(input.dtype)
            index = _index(target, mask)
            count = torch.count_nonzero(mask > 0)
            weight = mask * self._weights(index, mask, classes)[index]
        loss = -(weight * F.log_softmax(input, 1).gather(1, index)).sum()
        return averaged(loss, count) if self.size_average else (loss, count)

    @torch.no_grad()
    def classes(self, target: Tensor, mask: Tensor) -> Tensor:
        """Return the summed mask of each class: (C,)."""
        mask = mask.float()
        return self._sums(_index(target, mask), mask)

    def _weights(self, index: Tensor, mask: Tensor, classes: Tensor | None) -> Tensor:
        """Return the weight of each class."""
        if self.class_weights:  # filled in on the device: copying a list there would wait for the device
            weights = torch.stack([mask.new_full((), weight) for weight in self.class_weights])
        else:
            weights = mask.new_ones(self.channels)
        if not self.class_balancing:
            return weights
        sums = self._sums(index, mask) if classes is None else classes.to(mask.dtype)
        inverse = torch.where(sums > 0, 1 / sums, 0)
        return torch.where(sums > 0, weights * inverse / inverse.sum(), 0)

    def _sums(self, index: Tensor, mask: Tensor) -> Tensor:
        return torch.stack([(mask * (index == c)).sum() for c in range(self.channels)])


def _index(target: Tensor, mask: Tensor) -> Tensor:
    """Return the classes as an index tensor, 0 where the mask is 0."""
    return target.long().masked_fill(mask <= 0, 0)
