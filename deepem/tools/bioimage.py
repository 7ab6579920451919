"""Write a network as a package of bioimage.io: a zip of `model.yaml`, weights, test tensors and documentation.

The weights are a state dict, which programs load into the network that `deepem.build.loading.served` builds. The
format is described at https://bioimage-io.github.io/spec-bioimage-io.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from deepem.build import loading
from deepem.tools import model_card, serving
from deepem.utils.files import replacing
from deepem.utils.intensity import Percentiles, from_plain

FORMAT_VERSION = "0.5.4"
WEIGHTS, DOCUMENTATION = "weights.pt", "README.md"
SPACE = "zyx"
VALIDATION = """
# Validation

Predict a volume with known truth and score it: `deepem evaluate PREDICTION.h5 --truth FOLDER`. The test tensors show
whether the network gives the same numbers on your machine; they do not show how good it is on your tissue.
"""

Descr = dict[str, Any]


def write(
    path: Path, prepared: serving.Prepared, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    """Write the package.

    Args:
        path: The zip file.
        prepared: The network.
        card: Its card, with ``name`` and ``licence``.
        arrays: The example input, and the example of each output in the order of the heads, by file name.
    """
    weights = io.BytesIO()
    torch.save(prepared.served.hidden[0].state_dict(), weights)
    files: dict[str, bytes] = {WEIGHTS: weights.getvalue()}
    files[DOCUMENTATION] = (model_card.in_words(dict(card)) + VALIDATION).encode()
    for name, array in arrays.items():
        held = io.BytesIO()
        np.save(held, array, allow_pickle=False)
        files[name] = held.getvalue()
    text = yaml.safe_dump(described(prepared, card, arrays), sort_keys=False, allow_unicode=True)
    with replacing(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in {"model.yaml": text.encode(), **files}.items():
            package.writestr(name, content)


def described(prepared: serving.Prepared, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Descr:
    """Return the contents of `model.yaml`."""
    (given, image), *made = arrays.items()
    heads = prepared.served.heads
    outputs = [_tensor(head.lower(), file, array) for head, (file, array) in zip(heads, made, strict=True)]
    build = loading.served
    weights = {
        "source": WEIGHTS,
        "architecture": {"import_from": build.__module__, "callable": build.__name__, "kwargs": {"run": card["run"]}},
        "pytorch_version": torch.__version__.split("+")[0],
        "comment": f"needs deepem {card['provenance']['version']}",
    }
    tolerance = 5e-3 if isinstance(from_plain(card["intensity"]), Percentiles) else 1e-3  # others interpolate them
    tolerance = min(tolerance, *(float(array.max()) / 128 for _, array in made))  # the format allows a hundredth
    licence = {} if card["licence"] == "not stated" else {"license": card["licence"]}
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": f"deepem {card['name']}".replace(".", "_"),
        "description": f"{', '.join(heads)} in volume electron microscopy ({card['model']}), trained with deepem",
        **licence,
        "documentation": DOCUMENTATION,
        "tags": ["electron-microscopy", "3d", "pytorch", "deepem", *heads],
        "inputs": [_tensor("image", given, image) | {"preprocessing": preprocessing(card["intensity"], image)}],
        "outputs": outputs,
        "weights": {"pytorch_state_dict": weights},
        "config": {"bioimageio": {"reproducibility_tolerance": [{"absolute_tolerance": tolerance}]}},
        "timestamp": card["provenance"]["time"],
    }


def _tensor(name: str, file: str, array: np.ndarray[Any, Any]) -> Descr:
    """Describe an array (1, C, Z, Y, X)."""
    channels = [f"{name}_{i}" for i in range(array.shape[1])]
    axes: list[Descr] = [{"type": "batch"}, {"type": "channel", "channel_names": channels}]
    axes += [{"type": "space", "id": axis, "size": int(n)} for axis, n in zip(SPACE, array.shape[2:], strict=True)]
    return {"id": name, "axes": axes, "test_tensor": {"source": file}, "data": {"type": str(array.dtype)}}


def preprocessing(intensity: Mapping[str, Any] | None, image: np.ndarray[Any, Any]) -> list[Descr]:
    """Return the steps from grey values as stored to float32 in [0, 1]."""
    as_float = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
    clip = {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}
    found = from_plain(intensity)
    if found is None:
        scale = {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}
        return [as_float, scale, as_float] if image.dtype == np.uint8 else []
    if isinstance(found, Percentiles):
        limits = {"axes": list(SPACE), "min_percentile": found.low, "max_percentile": found.high}
        return [as_float, {"id": "scale_range", "kwargs": limits}, clip, as_float]
    ranges = found.by_channel(image.shape[1])
    gain = [1 / (high - low) for low, high in ranges]
    offset = [-low / (high - low) for low, high in ranges]
    along = {"axis": "channel", "gain": gain, "offset": offset}
    return [as_float, {"id": "scale_linear", "kwargs": along}, clip, as_float]
