"""Splits a batch into shares for gradient accumulation, with the batch totals that the losses need."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deepem.train.objective import Batch, Objective, Totals
from deepem.train.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """A share of a batch: the samples of one forward and backward pass.

    Attributes:
        batch: Its samples.
        totals: Totals over the whole batch that the losses need.
        last: Whether this is the last share of the batch.
    """

    batch: Batch
    totals: Totals
    last: bool = True


class Division:
    """Divides this rank's batch into shares.

    Args:
        objective: The training objective.
        ranks: The processes that share each batch.
        accumulate: The number of shares per batch.
    """

    def __init__(self, objective: Objective, ranks: Ranks, accumulate: int) -> None:
        self.objective, self.ranks, self.accumulate = objective, ranks, accumulate

    def shares(self, batch: Batch) -> list[Share]:
        """Split a batch into its shares."""
        totals = Totals(self._counts(batch), self._classes(batch))
        parts = self.parts(batch)
        return [Share(part, totals, last=number == len(parts)) for number, part in enumerate(parts, 1)]

    def whole(self, batch: Batch) -> Share:
        """Return a batch as a single share."""
        return Share(batch, Totals(classes=self._classes(batch)))

    def parts(self, batch: Batch) -> list[Batch]:
        """Return the samples of each share."""
        split = {key: value.chunk(self.accumulate) for key, value in batch.items()}
        return [{key: values[i] for key, values in split.items()} for i in range(self.accumulate)]

    def _sees_all(self) -> bool:
        """Whether each share is a whole batch."""
        return self.ranks.world == self.accumulate == 1

    def _counts(self, batch: Batch) -> dict[str, Tensor] | None:
        if not self.objective.average or self._sees_all():
            return None
        return {name: self.ranks.sum(count) for name, count in self.objective.counts(batch).items()}

    def _classes(self, batch: Batch) -> dict[str, Tensor]:
        if self._sees_all():
            return {}
        return {name: self.ranks.sum(sums) for name, sums in self.objective.classes(batch).items()}
