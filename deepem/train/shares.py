"""A batch in shares whose gradients are computed one after the other, and what their losses must know of the whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deepem.train.objective import Batch, Objective, Totals
from deepem.train.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """A share of a batch whose gradient is computed at once.

    Attributes:
        batch: Its samples.
        totals: What losses must know of the whole batch.
        last: It is the last share of its batch.
    """

    batch: Batch
    totals: Totals
    last: bool = True


class Division:
    """How a batch is divided among shares, which are this rank's.

    Args:
        objective: What is minimised.
        ranks: The processes that share each batch.
        accumulate: A batch is computed in so many shares.
    """

    def __init__(self, objective: Objective, ranks: Ranks, accumulate: int) -> None:
        self.objective, self.ranks, self.accumulate = objective, ranks, accumulate

    def shares(self, batch: Batch) -> list[Share]:
        """A batch in its shares."""
        totals = Totals(self._counts(batch), self._classes(batch))
        parts = self.parts(batch)
        return [Share(part, totals, last=number == len(parts)) for number, part in enumerate(parts, 1)]

    def whole(self, batch: Batch) -> Share:
        """A batch as a single share."""
        return Share(batch, Totals(classes=self._classes(batch)))

    def parts(self, batch: Batch) -> list[Batch]:
        """The samples of each share."""
        split = {key: value.chunk(self.accumulate) for key, value in batch.items()}
        return [{key: values[i] for key, values in split.items()} for i in range(self.accumulate)]

    def _sees_all(self) -> bool:
        """Whether a share is the whole batch."""
        return self.ranks.world == self.accumulate == 1

    def _counts(self, batch: Batch) -> dict[str, Tensor] | None:
        if not self.objective.average or self._sees_all():
            return None
        return {name: self.ranks.sum(count) for name, count in self.objective.counts(batch).items()}

    def _classes(self, batch: Batch) -> dict[str, Tensor]:
        if self._sees_all():
            return {}
        return {name: self.ranks.sum(sums) for name, sums in self.objective.classes(batch).items()}
