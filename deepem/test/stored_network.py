"""Read from a checkpoint which heads and image channels its network has, and whether patches can be blended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepem.cli.forwarding import ForwardOptions
from deepem.cli.task_flags import stored_rows, task_options
from deepem.scan.kinds import is_dense
from deepem.tasks import TASKS, Task
from deepem.utils.checkpoint import State
from deepem.utils.errors import InputError

UNFIT = ("test_aug", "mirror", "force_crop", "crop_border", "crop_center")
"""Flags that only apply to blended patches."""


def refuse_unfit(options: ForwardOptions, row: Task) -> None:
    """Refuse flags that do not work for objects.

    Raises:
        InputError: a flag for blended patches, or a cloud-volume path, was given.
    """
    for name in UNFIT:
        if getattr(options.patches, name):
            raise InputError(f"--{name}", f"together with --{row.flag}", "one of them: objects are not blended")
    if options.cloud.gs_input or options.cloud.gs_output or options.batch.dummy:
        wants = "--test_ids without --gs_output: objects of files, into files"
        raise InputError("--gs_input, --gs_output, --dummy", f"together with --{row.flag}", wants)


def rows_of_network(state: State, chosen: Sequence[Task]) -> Sequence[Task]:
    """Return the heads to build: the requested ones, or all trained ones if the network predicts objects."""
    options = state.get("options") or {}
    trained = task_options(stored_rows(state), options).weights
    rows = [task for task in stored_rows(state) if trained.get(task.flag)]
    if all(is_dense(task) for task in rows):
        return chosen
    return task_options(stored_rows(state), options).chosen


def without_other_heads(weights: Mapping[str, Any], chosen: Sequence[Task]) -> dict[str, Any]:
    """Return the weights without those of known tasks that were not requested."""
    others = {task.name for task in TASKS} - {task.name for task in chosen}
    return {
        key: value for key, value in weights.items() if not (key.startswith("out.") and key.split(".")[1] in others)
    }


def input_channels(state: State) -> int:
    """Return the number of image channels: as in training, else of the public network's first convolution, else 1."""
    if spec := state.get("spec"):
        return int(spec[0]["input"][0])
    first = state.get("state_dict", {}).get("in.conv.weight")
    return 1 if first is None else int(first.shape[1])
