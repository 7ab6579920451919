"""Runs a dumped batch again and reports where the first value that is not finite appears.

``python -m deepem.train.replay experiments/NAME/nan/iterN.pt``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepem.build.stored import stored_run
from deepem.cli.one_line import OneLineParser, one_line_errors
from deepem.train.objective import Objective, Outputs, WithLosses, auxiliary_of, has_losses
from deepem.utils import checkpoint

LOSS = ("loss", "size_average", "margin0", "margin1", "inverse", "class_balancing", "default_aux")
"""The options that affect how losses are computed."""


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and replay the dump."""
    with one_line_errors("replay.py"):
        parser = OneLineParser("replay.py", description="Run a dumped batch again, in float32 on the CPU.")
        parser.add_argument("dump", type=Path, metavar="FILE", help="nan/iterN.pt of a run")
        parser.add_argument("--model", help="the model module, if it is not one of deepem's")
        given = parser.parse_args(words)
        replay(checkpoint.read(given.dump), given.dump, given.model)


def replay(dump: dict[str, Any], where: Path, model: str | None = None) -> None:
    """Run the forward and backward pass of a dump, and report values that are not finite as they appear."""
    run, batch = stored_run(dump, where, model), dump["batch"]
    network = run.network()
    network.load_state_dict(dump["state_dict"])
    _tell(f"iteration {dump['iter']}: samples {dump['samples']}")
    for key, value in batch.items():
        _tell(f"{key}: {_finite(value)}")
    for name, module in network.named_modules():
        module.register_forward_hook(_watch(name))
    own = has_losses(network)
    how = {name: run.options[name] for name in LOSS}
    objective = Objective(run.tasks, run.options, how, auxiliary_of(network), own)
    outputs = Outputs(*reversed(WithLosses(network)(batch))) if own else Outputs(network(batch["input"]))
    losses = objective.losses(outputs, batch)
    for name, (loss, count) in losses.items():
        _tell(f"{name}: loss {loss.item() / max(float(count), 1):.6g} over {int(count)} voxels")
    objective.weighted_sum(losses).backward()
    bad = [name for name, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    _tell(f"gradients that are not finite: {', '.join(bad) or 'none'}")


def _watch(name: str) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        came_in = all(value.isfinite().all() for value in inputs if isinstance(value, Tensor))
        if isinstance(output, Tensor) and came_in and not output.isfinite().all():
            _tell(f"first in {name or 'the network'} ({type(module).__name__}): {_finite(output)}")

    return hook


def _finite(value: Tensor) -> str:
    if not value.is_floating_point() or value.isfinite().all():
        return f"finite, {value.min().item():.4g} to {value.max().item():.4g}"
    at = (~value.isfinite()).nonzero()
    return f"not finite in {len(at)} of {value.numel()} places, first at {tuple(at[0].tolist())}"


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    with torch.autograd.set_detect_anomaly(True):
        main()
