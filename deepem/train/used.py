"""The weights that are used: in evaluation, by forward, export and --pretrain, where those that are trained move on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from deepem.train import calibration
from deepem.train.weights import Average, applied


class UsedWeights:
    """The moving average of the weights, if there is one, with batch-norm statistics that belong to them.

    Those statistics are averaged as the weights are, or taken anew over training samples. Without either, the weights
    that are used are those that are trained.

    Args:
        network: That is trained.
        average: Of its weights.
        samples: Statistics are taken anew over so many samples; 0 for none.
        frozen: Normalisations that keep their statistics.

    Attributes:
        samples: Over which statistics are taken; 0 too where no normalisation keeps any.
    """

    def __init__(
        self, network: nn.Module, average: Average | None, samples: int, frozen: Collection[nn.Module] = ()
    ) -> None:
        self.network, self.average, self.frozen = network, average, frozen
        self.samples = samples if calibration.applies(network, frozen) else 0
        self._statistics: calibration.Statistics = {}
        self._calibrated = False

    def follow(self, iteration: int) -> None:
        """Take in the trained weights after an iteration."""
        if self.average is not None:
            self.average.update(iteration)

    def changed(self) -> None:
        """Forget the statistics of weights that are about to change."""
        self._statistics, self._calibrated = {}, False

    @property
    def to_calibrate(self) -> bool:
        """Whether statistics are wanted that have not been taken of these weights."""
        return self.samples > 0 and not self._calibrated

    def calibrate(self, passes: Iterable[Callable[[], object]], total: Callable[[Tensor], Tensor]) -> None:
        """Take the statistics anew; see `calibration.measured`. The training state stays as it is."""
        with applied(self.network, self._averaged):
            self._statistics = calibration.measured(self.network, self.frozen, passes, total)
        self._calibrated = True

    @property
    def _averaged(self) -> dict[str, Tensor]:
        return {} if self.average is None else self.average.state

    def applied(self) -> AbstractContextManager[None]:
        """The network has the weights that are used within."""
        return applied(self.network, self._averaged | self._statistics)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of them: nothing where they are those that are trained."""
        other = self._averaged | self._statistics
        return {"ema": {**self.network.state_dict(), **other}} if other else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a checkpoint, or from its trained weights where it has no others."""
        if self.average is not None:
            self.average.load(state.get("ema") or state["state_dict"])
