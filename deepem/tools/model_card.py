"""The card of an export: what a user of the network must know, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepem.build.network import patch_sizes
from deepem.build.stored import StoredRun
from deepem.runs.folder import plain
from deepem.tasks import to_plain
from deepem.utils import checkpoint
from deepem.utils.intensity import Percentiles, from_plain


def described(
    state: checkpoint.State, run: StoredRun, averaged: bool, shapes: Sequence[tuple[int, ...]]
) -> dict[str, Any]:
    """Return what a user of the network must know, and everything needed to rebuild it.

    Args:
        state: The checkpoint.
        run: How its run was set up.
        averaged: Whether the weights are the moving average.
        shapes: (C, Z, Y, X) of each output in eval mode; some networks return larger outputs in training.
    """
    options, before = state["options"], run.sizes
    sizes = patch_sizes(run.model, before.input, before.output if before.crop else None, evaluating=True)
    return {
        "iteration": state["iter"],
        "weights": _weights(options, averaged),
        "model": options["model"],
        "input": {name: list(shape) for name, shape in state["spec"][0].items()},
        "outputs": {task.name: list(shape) for task, shape in zip(run.tasks, shapes, strict=True)},
        "outputs_in_training": {name: list(shape) for name, shape in state["spec"][1].items()},
        "output_begins": list(sizes.front),
        "output_factor": list(sizes.factor),
        "tasks": {
            t.name: {"kind": t.kind, "weight": options[t.flag], "edges": [list(e) for e in t.edges], "row": to_plain(t)}
            for t in run.tasks
        },
        "normalisation": f"grey values in [0, 1]: {normalisation(state)}; outputs are probabilities",
        "intensity": state.get("intensity"),
        "axes": (
            "N, C, Z, Y, X; an edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx); outputs have output_factor "
            "voxels per voxel of the input, and begin output_begins of their own voxels after it"
        ),
        "data": {name: options.get(name) for name in ("data", "train_ids", "val_ids", "augment")},
        "optimiser": {name: options.get(name) for name in ("optim", "lr", "batch_size", "seed", "amp")},
        "network": {name: plain(value) for name, value in run.model.flags.items() if name != "create_backbone"},
        "run": {name: plain(state[name]) for name in ("iter", "options", "spec", "channels", "tasks") if name in state},
    }


def _weights(options: Mapping[str, Any], averaged: bool) -> str:
    if not averaged:
        return "as trained"
    return "moving average" if options.get("ema") else "as trained, with batch-norm statistics taken anew"


def normalisation(state: checkpoint.State) -> str:
    """Describe how grey values become numbers in [0, 1]."""
    found = from_plain(state.get("intensity"))
    if found is None:
        return "uint8 divided by 255"
    if isinstance(found, Percentiles):
        return f"the percentiles {found.low:g} and {found.high:g} of each volume become 0 and 1, the rest is clipped"
    return f"{found.in_words()} (by channel) become 0 to 1, the rest is clipped"


def in_words(card: dict[str, Any]) -> str:
    """Return the model card as Markdown."""
    lines = ["# Model card", ""]
    for key, value in card.items():
        if isinstance(value, dict):
            lines += [f"- **{key}**", *(f"  - {name}: {inner}" for name, inner in value.items())]
        else:
            lines.append(f"- **{key}**: {value}")
    return "\n".join(lines) + "\n"
