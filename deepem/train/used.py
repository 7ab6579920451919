"""The evaluation weights: those that evaluation, forward, export and --pretrain use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from deepem.train import calibration
from deepem.train.weights import Average, applied


class UsedWeights:
    """The evaluation weights: the moving average of the trained weights, if there is one, with batch-norm statistics.

    The statistics are either averaged like the weights or recomputed over training samples. Without an average and
    without recomputed statistics, the evaluation weights are the trained weights.

    Args:
        network: The network in training.
        average: The moving average of its weights, or None.
        samples: Recompute the statistics over this many samples; 0 turns this off.
        frozen: Norm layers that keep their statistics.

    Attributes:
        samples: As given, but 0 if no norm layer keeps statistics.
    """

    def __init__(
        self, network: nn.Module, average: Average | None, samples: int, frozen: Collection[nn.Module] = ()
    ) -> None:
        self.network, self.average, self.frozen = network, average, frozen
        self.samples = samples if calibration.applies(network, frozen) else 0
        self._statistics: calibration.Statistics = {}
        self._calibrated = False

    def follow(self, iteration: int) -> None:
        """Update the average with the trained weights after an iteration."""
        if self.average is not None:
            self.average.update(iteration)

    def changed(self) -> None:
        """Discard the recomputed statistics, because the weights are about to change."""
        self._statistics, self._calibrated = {}, False

    @property
    def to_calibrate(self) -> bool:
        """Whether statistics must be recomputed for the current weights."""
        return self.samples > 0 and not self._calibrated

    def calibrate(self, passes: Iterable[Callable[[], object]], total: Callable[[Tensor], Tensor]) -> None:
        """Recompute the statistics; see `calibration.measured`. The training state does not change."""
        with applied(self.network, self._averaged):
            self._statistics = calibration.measured(self.network, self.frozen, passes, total)
        self._calibrated = True

    @property
    def _averaged(self) -> dict[str, Tensor]:
        return {} if self.average is None else self.average.state

    def applied(self) -> AbstractContextManager[None]:
        """Within this context, the network has the evaluation weights."""
        return applied(self.network, self._averaged | self._statistics)

    def state(self) -> dict[str, Any]:
        """Return the evaluation weights for a checkpoint; empty if they are the trained weights."""
        other = self._averaged | self._statistics
        return {"ema": {**self.network.state_dict(), **other}} if other else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the average from a checkpoint, or start it from the trained weights if the checkpoint has none."""
        if self.average is not None:
            self.average.load(state.get("ema") or state["state_dict"])
