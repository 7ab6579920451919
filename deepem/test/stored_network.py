"""What a checkpoint says of its network: its heads, its image, and whether it can be slid over volumes."""

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
"""Flags that mean something for blended patches alone."""


def refuse_unfit(options: ForwardOptions, row: Task) -> None:
    """Refuse what cannot be done with objects.

    Raises:
        InputError: a flag of blended patches, or volumes behind cloud-volume.
    """
    for name in UNFIT:
        if getattr(options.patches, name):
            raise InputError(f"--{name}", f"together with --{row.flag}", "one of them: objects are not blended")
    if options.cloud.gs_input or options.cloud.gs_output or options.batch.dummy:
        wants = "--test_ids without --gs_output: objects of files, into files"
        raise InputError("--gs_input, --gs_output, --dummy", f"together with --{row.flag}", wants)


def rows_of_network(state: State, chosen: Sequence[Task]) -> Sequence[Task]:
    """The heads to build: those asked for; all that were trained where a network has objects among its outputs."""
    options = state.get("options") or {}
    trained = task_options(stored_rows(state), options).weights
    rows = [task for task in stored_rows(state) if trained.get(task.flag)]
    if all(is_dense(task) for task in rows):
        return chosen
    return task_options(stored_rows(state), options).chosen


def without_other_heads(weights: Mapping[str, Any], chosen: Sequence[Task]) -> dict[str, Any]:
    """The weights less those of heads that are known tasks but not asked for."""
    others = {task.name for task in TASKS} - {task.name for task in chosen}
    return {
        key: value for key, value in weights.items() if not (key.startswith("out.") and key.split(".")[1] in others)
    }


def input_channels(state: State) -> int:
    """Channels of the image: as in training, else those of the public network's first convolution, else one."""
    if spec := state.get("spec"):
        return int(spec[0]["input"][0])
    first = state.get("state_dict", {}).get("in.conv.weight")
    return 1 if first is None else int(first.shape[1])
