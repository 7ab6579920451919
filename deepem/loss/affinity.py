"""Affinity loss along arbitrary edges, computed directly from instance ids."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deepem.loss.balance import balanced, class_sums
from deepem.loss.voxel import averaged, full_precision
from deepem.utils.edges import edge_slices, edge_views
from deepem.utils.geometry import vec3


class AffinityLoss(nn.Module):
    """The sum of a voxel-wise criterion over edges; an edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx).

    The affinity is 1 where v and its partner have the same nonzero id. Its mask is the product of the masks of the two
    voxels. The mask is 0 where v has no partner: in the first planes for a positive edge, in the last for a negative.

    Args:
        edges: (dz, dy, dx) of every channel.
        criterion: Called once with (logits, affinities, mask), all (N, E, Z, Y, X). It must return (sum, count), so
            create it with ``size_average=False``.
        size_average: Divide the loss by the count over all edges.
        class_balancing: For each edge, weight positive voxels by the fraction of negative voxels, and negative voxels
            by the fraction of positive ones. Fractions are of the summed mask over the batch, or of `classes`. An edge
            with only one class keeps its weights.
    """

    def __init__(
        self,
        edges: Iterable[Iterable[int]],
        criterion: nn.Module,
        size_average: bool = False,
        class_balancing: bool = False,
    ) -> None:
        super().__init__()
        if getattr(criterion, "size_average", False):
            raise ValueError("criterion: got size_average=True, wants False: all edges are averaged together")
        self.edges = tuple(vec3(edge) for edge in edges)
        self.criterion = criterion
        self.size_average = size_average
        self.class_balancing = class_balancing

    def forward(
        self, input: Tensor, target: Tensor, mask: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (loss, count) of logits (N, E, Z, Y, X) against ids and their mask, both (N, 1, Z, Y, X).

        Args:
            input: Logits.
            target: Ids.
            mask: Where the loss counts.
            classes: The result of the method `classes`, summed over the whole batch, if this call gets a part of it.
        """
        if input.shape[1] != len(self.edges):
            raise ValueError(f"input: got {input.shape[1]} channels, wants {len(self.edges)}, one per edge")
        input = full_precision(input)
        with torch.no_grad():
            affinity, weight = self._affinities(target, mask.to(input.dtype), len(input))
            if self.class_balancing:
                weight = balanced(affinity, weight, class_sums(affinity, weight) if classes is None else classes)
        loss, count = self.criterion(input, affinity, weight)
        return averaged(loss, count) if self.size_average else (loss, count)

    @torch.no_grad()
    def classes(self, target: Tensor, mask: Tensor) -> Tensor:
        """Return the summed mask of the positive and of the negative voxels of every edge: (2, E, 1, 1, 1)."""
        return class_sums(*self._affinities(target, mask.float(), len(target)))

    def _affinities(self, ids: Tensor, mask: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Return the affinities and their mask, both (N, E, Z, Y, X).

        One tensor holds all edges, with zero weight where a voxel has no partner. The criterion and its gradient then
        pass over the logits once; slicing the logits would cost a full-size gradient per edge.
        """
        shape = (batch, len(self.edges), *ids.shape[2:])
        affinity, weight = mask.new_zeros(shape), mask.new_zeros(shape)
        for channel, edge in enumerate(self.edges):
            a, b = edge_views(ids[:, 0], edge)
            if a.numel() == 0:
                continue
            inside: tuple[slice | int, ...] = (slice(None), channel, *edge_slices(edge)[0])
            affinity[inside] = (a == b) & (a != 0)
            weight[inside] = torch.mul(*edge_views(mask[:, 0], edge))
        return affinity, weight
