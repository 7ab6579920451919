"""The criterion of classes that exclude each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepem.loss.voxel import averaged, full_precision


class SemanticLoss(nn.Module):
    """Cross-entropy of a softmax over channels, (loss, count) as in `deepem.loss.voxel`::

        loss   sum over voxels of mask * weight[class] * -log softmax(input)[class]
        count  number of voxels with mask > 0

    What a label says where the mask is 0 does not matter, also a class that the input has no channel for: the loss
    has a gradient of exactly 0 there.

    Args:
        channels: The number of classes.
        class_weights: A weight per class; none: 1 each.
        size_average: Divide by the count.
        class_balancing: Weigh classes so that those that are there have the same sum of weights, which for n_c voxels
            of class c is 1 / sum_c (1 / n_c): as `AffinityLoss` does with its two. Class weights come on top.
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
        """(loss, count) of logits (N, C, Z, Y, X) against classes 0 to C - 1 and their mask, both (N, 1, Z, Y, X).

        Args:
            input: Logits.
            target: Classes.
            mask: Where the loss counts, and how much.
            classes: From `classes`, summed over all parts of a batch, where this is one of them.
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
        """The summed mask of the voxels of each class: (C,)."""
        mask = mask.float()
        return self._sums(_index(target, mask), mask)

    def _weights(self, index: Tensor, mask: Tensor, classes: Tensor | None) -> Tensor:
        """The weight of each class."""
        weights = mask.new_tensor(self.class_weights) if self.class_weights else mask.new_ones(self.channels)
        if not self.class_balancing:
            return weights
        sums = self._sums(index, mask) if classes is None else classes.to(mask.dtype)
        inverse = torch.where(sums > 0, 1 / sums, 0)
        return torch.where(sums > 0, weights * inverse / inverse.sum(), 0)

    def _sums(self, index: Tensor, mask: Tensor) -> Tensor:
        return torch.stack([(mask * (index == c)).sum() for c in range(self.channels)])


def _index(target: Tensor, mask: Tensor) -> Tensor:
    """The classes as an index, 0 where the mask is 0."""
    return target.long().masked_fill(mask <= 0, 0)
