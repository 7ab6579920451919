"""Loads a network from disk: from an export folder or a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepem.build.stored import stored_run
from deepem.scan.kinds import KINDS
from deepem.tasks import Task
from deepem.utils import checkpoint, checkpoint_contents
from deepem.utils.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

CARD, WEIGHTS = "model.json", "model.safetensors"


def load(path: str | Path, model: str | None = None, *, raw: bool = False) -> nn.Module:
    """See `deepem.load`."""
    place = Path(path)
    state, weights = _exported(place) if place.is_dir() else _stored(place, raw)
    network = stored_run(state, place, model).network()
    checkpoint.load_weights(network, weights, place)
    return network.eval()


def probabilities_of(task: Task) -> Callable[[Tensor], Tensor]:
    """Return the function from a head's logits to probabilities.

    Raises:
        InputError: the head predicts objects.
    """
    found = KINDS[task.kind].probabilities
    if found is None:
        raise InputError(f"--{task.flag}", "an output of objects", "outputs that have a value at every voxel")
    return found


def served(run: Mapping[str, Any], model: str | None = None) -> nn.Module:
    """Build a network whose outputs are probabilities, in a tuple, in the order of the tasks.

    Programs that know nothing of deepem call this, as a `model.yaml` of bioimage.io says, and load the weights
    themselves: the state dict has the names of the checkpoint.

    Args:
        run: The entry ``run`` of a card, which says how the network was trained.
        model: The model module if it is not one of deepem's.

    Raises:
        InputError: the card does not say how to build the network.
    """
    checkpoint_contents.check(run, CARD)
    stored = stored_run(run, CARD, model)
    heads = [(task.name, probabilities_of(task)) for task in stored.tasks]
    network = stored.network().eval()
    network.register_forward_hook(lambda _module, _given, out: tuple(made(out[name]) for name, made in heads))
    return network


def _stored(path: Path, raw: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    state = checkpoint.read(path)
    return state, checkpoint.weights_of(state, path, raw=raw)


def _exported(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    wants = "a folder that deepem export wrote, or a checkpoint"
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        state = card["run"]
        checkpoint_contents.check(state, folder / CARD)
    except OSError as error:
        raise InputError(folder, f"{CARD}: {error.strerror}", wants) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(folder / CARD, "a card that says nothing of the network", wants) from error
    return state, load_tensors(folder / WEIGHTS)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load tensors by name from a safetensors file, which cannot hold anything else.

    Raises:
        InputError: the file cannot be read, or the package safetensors is missing.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise InputError(path, f"no package {error.name}", "it installed: pip install 'deepem[serve]'") from error
    try:
        found: dict[str, Tensor] = load_file(path)
        return found
    except (OSError, SafetensorError) as error:
        wants = "tensors in the safetensors format, as deepem export writes them"
        raise InputError(path, f"a file that cannot be read ({error})", wants) from error
