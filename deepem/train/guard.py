"""What stands between a NaN and the weights: a step whose loss or gradient is not finite is not taken.

What led to it is written down, so that it can be replayed: the samples by volume, location, index and seed, the batch
itself, and the weights.
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
"""Batches that are dumped at most; of later ones only the description is."""


class Guard:
    """Judges every step.

    Args:
        network: Its buffers (the statistics of batch norms) are put back when a step is skipped.
        budget: How many steps may be skipped in all.
        folder: Where dumps go.
        ranks: Who has to agree.

    Attributes:
        skipped: Steps skipped so far.
    """

    def __init__(self, network: nn.Module, budget: int, folder: Path, ranks: Ranks) -> None:
        self.network, self.budget, self.folder, self.ranks = network, budget, folder, ranks
        self.skipped = 0
        self._buffers = list(network.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the buffers as they are before a step."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the buffers back to what was remembered."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)

    def step(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, loss: Tensor, norm: Tensor) -> bool:
        """Let the optimiser change the weights unless loss or gradient is not finite, and tell whether the step counts.

        To look at the two is to wait for the device. A fused optimiser is told there, and leaves the weights alone by
        itself: it is launched before the look. With half-precision gradients, one that is not finite is the scaler's
        business while it has room to scale down.
        """
        bad = self.ranks.sum(torch.stack([~torch.isfinite(loss.detach()), ~torch.isfinite(norm)]).float())
        look = read_later(bad)
        ahead = not scaler.is_enabled() and all(group.get("fused") for group in optimizer.param_groups)
        if ahead:
            # 0 or 1: torch takes the latter alone for bad, and these are sums over the ranks
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
        """Undo what a forward pass did to the buffers, dump the batch, and go on if the budget allows.

        Args:
            iteration: The step that is not taken.
            facts: What describes it, in plain values; `samples`, `values` and `options` are among them.
            batch: What the network was trained on.

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
    """A training sample in words: its number, and where it was cut."""
    place = f" of {sample['volume']} around {','.join(map(str, sample['location']))}" if "volume" in sample else ""
    return f"{sample['index']} of seed {sample['seed']}{place}"


def samples(sampler: Sampler, seed: int, indices: Sequence[int], generator: Any) -> list[dict[str, Any]]:
    """What is known of training samples: index and seed, and the volume and location if the sampler can tell."""
    found: list[dict[str, Any]] = [{"index": index, "seed": seed} for index in indices]
    if isinstance(sampler, TellsLocation):
        for sample in found:
            volume, location = sampler.locate(generator(seed, "train", sample["index"]))
            sample |= {"volume": volume, "location": [int(n) for n in location]}
    return found
