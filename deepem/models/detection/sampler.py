"""Draw the boxes that the losses are computed for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class BalancedPositiveNegativeSampler:
    """Draw boxes at random, with a largest share of objects; background fills up the rest.

    Args:
        batch_size_per_image: Number of boxes to draw per image.
        positive_fraction: Largest share of objects among them.
        generator: Random generator; by default torch's own for the device.
    """

    def __init__(
        self, batch_size_per_image: int, positive_fraction: float, generator: torch.Generator | None = None
    ) -> None:
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction
        self.generator = generator

    def __call__(self, matched_idxs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Draw boxes for each image.

        Args:
            matched_idxs: For each image (N,): 1 or more for objects, 0 for background, negative for boxes that are
                never drawn.

        Returns:
            For each image two masks (N,) bool: the objects drawn, and the background drawn.
        """
        drawn: tuple[list[Tensor], list[Tensor]] = ([], [])
        for matched in matched_idxs:
            positive, negative = (matched >= 1).nonzero()[:, 0], (matched == 0).nonzero()[:, 0]
            objects = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
            background = min(len(negative), self.batch_size_per_image - objects)
            for of, some, count in zip(drawn, (positive, negative), (objects, background), strict=True):
                mask = torch.zeros_like(matched, dtype=torch.bool)
                chosen = torch.randperm(len(some), generator=self.generator, device=some.device)[:count]
                mask[some[chosen]] = True
                of.append(mask)
        return drawn
