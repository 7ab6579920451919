"""Loads a network from disk: from an export folder or a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepem.build.stored import stored_run
from deepem.utils import checkpoint, checkpoint_contents
from deepem.utils.errors import InputError

if TYPE_CHECKING:
    from torch import nn

CARD, WEIGHTS = "model.json", "model.safetensors"


def load(path: str | Path, model: str | None = None, *, raw: bool = False) -> nn.Module:
    """See `deepem.load`."""
    place = Path(path)
    state, weights = _exported(place) if place.is_dir() else _stored(place, raw)
    network = stored_run(state, place, model).network()
    checkpoint.load_weights(network, weights, place)
    return network.eval()


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
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise InputError(folder, f"no package {error.name}", "it installed: pip install 'deepem[serve]'") from error
    try:
        return state, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(folder / WEIGHTS, f"a file that cannot be read ({error})", wants) from error
