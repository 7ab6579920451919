"""Reads from a checkpoint how its network was trained: tasks, model and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepem.build.network import PatchSizes, create_network
from deepem.cli import plugins
from deepem.cli.plugins import PlugIn
from deepem.cli.task_flags import stored_rows, task_options
from deepem.tasks import Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StoredRun:
    """What a checkpoint says about the run that wrote it.

    Attributes:
        options: The options of the run, by flag.
        tasks: The tasks that the run trained.
        model: The model with the values of its flags.
        sizes: Its patch sizes.
        channels: Number of image channels.
    """

    options: Mapping[str, Any]
    tasks: tuple[Task, ...]
    model: PlugIn
    sizes: PatchSizes
    channels: int

    def network(self) -> nn.Module:
        """Create the network; its weights are not loaded yet."""
        return create_network(self.model, self.tasks, self.channels, self.sizes)


def stored_run(state: Mapping[str, Any], where: object, model: str | None = None) -> StoredRun:
    """Read from a checkpoint, or from the dump of a step, how the run was set up.

    A checkpoint names the code of its model. Only modules of deepem are imported on that word alone.

    Args:
        state: The contents of the file.
        where: The file to name in errors.
        model: The model module to use instead of the one that the checkpoint names.

    Raises:
        InputError: the file does not say how the run was set up, as in a checkpoint of the public DeepEM or a bare
            state dict. Or it names a module outside deepem, and `model` is not given.
    """
    options = state.get("options")
    if not isinstance(options, Mapping):
        raise InputError(where, "a checkpoint without options", "one that this program wrote")
    if model is None:
        plugins.require_own("model", options.get("model"), where)
    plugins.require_own("backbone", options.get("backbone"), where)
    if lacking := [name for name in ("inputsz", "outputsz") if name not in options]:
        raise InputError(where, f"options without {lacking[0]}", "those of a run")
    crop = options.get("cropsz")
    z, y, x = crop if crop else (0, 0, 0)
    return StoredRun(
        options=options,
        tasks=task_options(stored_rows(state), options).chosen,
        model=_model(model or options["model"], options),
        sizes=PatchSizes(vec3(options["inputsz"]), vec3(options["outputsz"]), (z, y, x) if crop else None),
        channels=channels_of(state),
    )


def _model(word: str, options: Mapping[str, Any]) -> PlugIn:
    backbone = options.get("backbone")
    made = plugins.named("backbone", backbone, options, missing=True) if backbone else None
    return plugins.model_with_backbone(plugins.named("model", word, options, missing=True), made)


def channels_of(state: Mapping[str, Any]) -> int:
    """Return the number of image channels that a checkpoint was trained on; 1 if the checkpoint does not say."""
    spec = state.get("spec")
    return int(state.get("channels") or (next(iter(spec[0].values()))[0] if spec else 1))
