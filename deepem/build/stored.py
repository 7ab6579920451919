"""From a checkpoint to its network: which tasks, model and sizes it was trained with."""

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
    """What a checkpoint says of the run that wrote it.

    Attributes:
        options: The options of the run, by flag.
        tasks: The rows that it trained.
        model: Its model, with the values of its flags.
        sizes: Its patches.
        channels: Channels of the image.
    """

    options: Mapping[str, Any]
    tasks: tuple[Task, ...]
    model: PlugIn
    sizes: PatchSizes
    channels: int

    def network(self) -> nn.Module:
        """The network, with weights that are yet to be loaded."""
        return create_network(self.model, self.tasks, self.channels, self.sizes)


def stored_run(state: Mapping[str, Any], where: object, model: str | None = None) -> StoredRun:
    """What a checkpoint, or the dump of a step, says of its run.

    A checkpoint names code, and only modules of deepem are run on its word alone.

    Args:
        state: The contents of the file.
        where: The file, named in errors.
        model: The model module, in place of the one that the checkpoint names.

    Raises:
        InputError: it does not say: a checkpoint of the public DeepEM, or a bare state dict. Or it names a module
            that is not deepem's, and `model` does not.
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
    """Channels of the images that a checkpoint was trained on; 1 where it does not say."""
    spec = state.get("spec")
    return int(state.get("channels") or (next(iter(spec[0].values()))[0] if spec else 1))
