"""Keeps NaN out of the weights: a step whose loss or gradient is not finite is skipped.

A skipped step is dumped so that it can be replayed: its samples (volume, location, index and seed), the batch itself,
and the weights.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepem.protocols import Sampler, TellsLocation
from deepem.train.device import LEAST_SCALE, read_later
from deepem.train.ranks import Ranks
from deepem.utils import checkpoint
from deepem.utils.errors import InputError, warn
from deepem.utils.files import write_text

DUMPS = 10
"""At most this many batches are dumped; later skipped steps leave only their description."""


class Guard:
    """Checks every step, and skips those that are not finite.

    Args:
        network: The network. When a step is skipped, its buffers (batch-norm statistics) are restored.
        budget: How many steps may be skipped in the whole run.
        folder: The folder for dumps.
        ranks: The processes that must agree on every decision.

    Attributes:
        skipped: Number of steps skipped so far.
    """

    def __init__(self, network: nn.Module, budget: int, folder: Path, ranks: Ranks) -> None:
        self.network, self.budget, self.folder, self.ranks = network, budget, folder, ranks
        self.skipped = 0
        self._buffers = list(network.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Remember the buffers as they are before a step."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the remembered buffers."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)

    def step(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, loss: Tensor, norm: Tensor) -> bool:
        """Take the optimiser step unless loss or gradient is not finite, and return whether the step counts.

        Reading loss and norm synchronises with the device. A fused optimiser can skip a bad step on the device, so its
        step is launched first and the values are read afterwards. In fp16, the gradient scaler handles a gradient that
        is not finite as long as it can lower its scale.
        """
        bad = self.ranks.sum(torch.stack([~torch.isfinite(loss.detach()), ~torch.isfinite(norm)]).float())
        look = read_later(bad)
        ahead = not scaler.is_enabled() and all(group.get("fused") for group in optimizer.param_groups)
        if ahead:
            # clamp the sum over the ranks to 0 or 1: torch treats only 1 as bad
            optimizer.found_inf = bad.amax().clamp(max=1)  # type: ignore[attr-defined]
            optimizer.step()
        bad_loss, bad_norm = look()
        has_room = bad_norm and scaler.is_enabled() and scaler.get_scale() > LEAST_SCALE
        if bad_loss or (bad_norm and not has_room):
            return False
        if not ahead:
            scaler.step(optimizer)
        scaler.update()
        return True

    @torch.no_grad()
    def skip(self, iteration: int, facts: Mapping[str, Any], batch: Mapping[str, Tensor]) -> None:
        """Restore the buffers, dump the batch, and continue if the budget allows it.

        Args:
            iteration: The skipped step.
            facts: The description of the step, in plain values; it includes `samples`, `values` and `options`.
            batch: The training batch.

        Raises:
            InputError: too many steps were skipped.
        """
        self.restore()
        self.skipped += 1
        path = self._dump(iteration, facts, batch)
        values = ", ".join(f"{name} {value:.4g}" for name, value in facts["values"].items())
        bad = [key for key, value in batch.items() if value.is_floating_point() and not value.isfinite().all()]
        samples = "; ".join(told(sample) for sample in facts["samples"])
        got = f"{values}; batch {'not finite in ' + ', '.join(bad) if bad else 'finite'}; samples: {samples}"
        replay = f"python -m deepem.train.replay {shlex.quote(str(path))}"
        if model := facts.get("options", {}).get("model"):
            replay += f" --model {shlex.quote(model)}"
        if self.skipped > self.budget:
            wants = f"finite numbers, or --skip_nan above {self.budget} (replay: {replay})"
            raise InputError(f"iteration {iteration}", got, wants)
        warn(f"iteration {iteration} skipped, {self.skipped} of {self.budget} allowed: {got}; replay: {replay}")

    def _dump(self, iteration: int, facts: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Path:
        name = f"iter{iteration}" + (f"_rank{self.ranks.rank}" if self.ranks.world > 1 else "")
        write_text(self.folder / f"{name}.json", json.dumps({**facts, "iter": iteration}, indent=2) + "\n")
        path = self.folder / f"{name}.pt"
        if len(list(self.folder.glob("*.pt"))) < DUMPS:
            tensors = {key: value.contiguous().cpu() for key, value in batch.items()}
            state = {"iter": iteration, "batch": tensors, "state_dict": self.network.state_dict(), **facts}
            checkpoint.write(path, state)
        return path


def told(sample: Mapping[str, Any]) -> str:
    """Describe a training sample in words: its number, and where it was cut."""
    place = f" of {sample['volume']} around {','.join(map(str, sample['location']))}" if "volume" in sample else ""
    return f"{sample['index']} of seed {sample['seed']}{place}"


def samples(sampler: Sampler, seed: int, indices: Sequence[int], generator: Any) -> list[dict[str, Any]]:
    """Return index and seed of training samples, and volume and location if the sampler can tell."""
    found: list[dict[str, Any]] = [{"index": index, "seed": seed} for index in indices]
    if isinstance(sampler, TellsLocation):
        for sample in found:
            volume, location = sampler.locate(generator(seed, "train", sample["index"]))
            sample |= {"volume": volume, "location": [int(n) for n in location]}
    return found
