"""The options of training that say how weights change: the optimiser and the learning rate."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from deepem.cli import words
from deepem.cli.flags import ASK, FREE, Group, flag

CALIBRATE = 40
"""Default number of samples for batch-norm statistics, if the weights are not averaged."""

SCHEDULES = ("constant", "step", "cosine", "poly")


def _scale(word: str) -> tuple[str, float]:
    """Parse a learning-rate factor for some parameters, ``core.enc=0.1``."""
    name, _, factor = words.text(word).strip().rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"got {word}, wants NAME=FACTOR such as core.enc=0.1")
    return name, float(words.non_negative(factor))


@dataclass(frozen=True)
class OptimiserOptions(Group):
    """How weights change."""

    title = "optimiser"
    optim: str = flag("Adam", "Adam, AdamW, SGD, or any other optimiser of torch.optim", metavar="NAME")
    lr: float = flag(0.001, "learning rate", read=words.positive, resume=ASK)
    betas: tuple[float, ...] = flag((0.9, 0.999), "betas of Adam", read=words.fraction, metavar="B", many=2)
    eps: float = flag(1e-8, "epsilon of Adam", read=words.positive)
    amsgrad: bool = flag(False, "use the AMSGrad variant of Adam")
    momentum: float = flag(0.9, "momentum of SGD", read=words.non_negative)
    weight_decay: float = flag(0.0, "weight decay of kernels; biases never decay", read=words.non_negative)
    clip: float = flag(
        0.0, "clip the gradient norm to this; 0 turns clipping off", read=words.non_negative, metavar="NORM"
    )
    accumulate: int = flag(
        1, "compute each batch in N parts and add up their gradients, to save memory", read=words.counting, metavar="N"
    )
    ema: float = flag(
        0.999, "decay of the moving average of the weights, which is evaluated and stored too; 0 turns it off",
        read=words.fraction, metavar="DECAY", resume=ASK, older=0.0,
    )  # fmt: skip
    calibrate: int | None = flag(
        None, "recompute batch-norm statistics over N training samples before evaluating or saving; 0 turns this "
        f"off (default: 0 with --ema, {CALIBRATE} without)",
        read=words.natural, metavar="N", resume=FREE, older=0,
    )  # fmt: skip
    freeze: list[str] | None = flag(
        None, "keep these parameters fixed: core.enc, or *.bias", metavar="NAME", many="+", resume=ASK
    )
    lr_scale: list[tuple[str, float]] | None = flag(
        None, "multiply the learning rate of some parameters", read=_scale, metavar="NAME=X", many="+", resume=ASK
    )
    layer_decay: float = flag(
        1.0, "multiply the learning rate by this from each layer of a backbone to the one below it",
        read=words.positive, metavar="X", resume=ASK,
    )  # fmt: skip

    @property
    def calibration_samples(self) -> int:
        """Number of samples to recompute batch-norm statistics over; 0 for none."""
        return (0 if self.ema else CALIBRATE) if self.calibrate is None else self.calibrate


@dataclass(frozen=True)
class ScheduleOptions(Group):
    """The learning rate over the iterations."""

    title = "learning rate schedule"
    lr_warmup: int = flag(0, "raise the rate linearly over N steps", read=words.natural, metavar="N", resume=ASK)
    lr_schedule: str = flag("constant", ", ".join(SCHEDULES), read=words.one_of(*SCHEDULES), resume=ASK)
    lr_until: int | None = flag(
        None, "last step of cosine and poly (default: --max_iter)", read=words.counting, metavar="N", resume=ASK
    )
    lr_steps: list[int] | None = flag(
        None, "steps at which the step schedule lowers the rate", read=words.counting, metavar="N", many="+", resume=ASK
    )
    lr_gamma: float = flag(0.1, "factor at each of --lr_steps", read=words.positive, metavar="X", resume=ASK)
    lr_power: float = flag(0.9, "exponent of poly", read=words.positive, metavar="X", resume=ASK)
