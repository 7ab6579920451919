"""Write a bundle, the folder that a published address serves: weights, card, options, and an example to check it by.

::

    bundle.json          the files that `deepem fetch` takes, with their checksums
    model.safetensors    the weights
    model.json           how to rebuild the network; MODEL_CARD.md says the same in words
    options.yaml         the settings of the run that trained it
    example_input.npy    grey values as stored, (1, C, Z, Y, X)
    example_<output>.npy the probabilities that the network makes of them, float32 (1, C, Z, Y, X)
    bioimageio.zip       the same network as a package of bioimage.io
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepem.build.loading import WEIGHTS
from deepem.data.synth.volume import make_volume
from deepem.io.download import digest
from deepem.io.files import opened_image
from deepem.tools import bioimage, output, serving
from deepem.tools.convert import of_options
from deepem.utils.errors import InputError
from deepem.utils.files import appearing, write_text
from deepem.utils.geometry import Box, vec3
from deepem.utils.intensity import Intensity, Percentiles, from_plain

MANIFEST, FORMAT = "bundle.json", 1
OPTIONS, EXAMPLE, PACKAGE = "options.yaml", "example_input.npy", "bioimageio.zip"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LEAST = (16, 64, 64)
"""Size of the smallest synthetic volume that an example is cut from."""

Array = NDArray[Any]


def write(
    prepared: serving.Prepared, out: Path, name: str, licence: str = "", example: str | None = None
) -> dict[str, Any]:
    """Write the folder, completely or not at all.

    Args:
        prepared: The network.
        out: The folder; it must be empty or not there yet.
        name: The name to publish it by.
        licence: An SPDX identifier, such as CC-BY-4.0.
        example: An image, from whose middle the example is cut; by default the example is synthetic tissue.

    Returns:
        The row for the table of published checkpoints.

    Raises:
        InputError: the name or the example cannot be used, or the folder cannot be written.
    """
    if not NAME.fullmatch(name):
        raise InputError("--name", name, "letters, digits, _ . and -, so that it fits into an address")
    card = prepared.card | {"name": name, "licence": licence or "not stated"}
    image = example_input(prepared.shape, card["intensity"], example)
    given = torch.from_numpy(normalised(image, card["intensity"]))
    with torch.no_grad():
        made = prepared.served(given)
    arrays = {EXAMPLE: image} | {
        f"example_{head}.npy": y.numpy() for head, y in zip(prepared.served.heads, made, strict=True)
    }
    with output.writing("--out", out), appearing(out) as folder:
        serving.write_card(folder, card)
        difference = serving.safetensors(prepared.served, given, made, folder / WEIGHTS, card)
        write_text(folder / OPTIONS, of_options(card["run"]["options"]))
        for file, array in arrays.items():
            np.save(folder / file, array, allow_pickle=False)
        for path in folder.iterdir():
            path.chmod(0o644)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in sorted(folder.iterdir())}
        write_text(folder / MANIFEST, json.dumps({"format": FORMAT, "name": name, "files": files}, indent=2) + "\n")
        bioimage.write(folder / PACKAGE, prepared, card, arrays)
        row = {"address": f"https://.../{name}/", "sha256": digest(folder / MANIFEST)}
    output.say(f"{out}: {', '.join([MANIFEST, *files, PACKAGE])}; largest difference of a probability {difference:.2g}")
    return row


def example_input(shape: tuple[int, ...], intensity: Mapping[str, Any] | None, source: str | None) -> Array:
    """Return grey values as they are stored, (1, C, Z, Y, X).

    Raises:
        InputError: the image has another number of channels, or is smaller than the patch.
    """
    channels, size = shape[0], vec3(shape[1:])
    if source is not None:
        return _cut(source, shape, as_stored=intensity is not None)
    whole = vec3(max(pair) for pair in zip(size, LEAST, strict=True))
    part = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(whole, size, strict=True))
    tissue = np.repeat(make_volume("example", whole)["img"][part][None, None], channels, 1)
    found = from_plain(intensity)
    if not isinstance(found, Intensity):
        return tissue
    ranges = np.array(found.by_channel(channels))[:, :, None, None, None]
    values = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * (tissue / 255)
    fits = ranges.min() >= 0 and ranges.max() < 2**16 and (ranges[:, 1] - ranges[:, 0]).min() > 255
    return np.asarray(values.round().astype(np.uint16) if fits else values.astype(np.float32))


def _cut(source: str, shape: tuple[int, ...], as_stored: bool) -> Array:
    """Cut a patch from the middle of an image."""
    size = vec3(shape[1:])
    with opened_image(source, as_stored=as_stored) as image:
        if image.channels != shape[0] or any(n < m for n, m in zip(image.size, size, strict=True)):
            wants = f"{shape[0]} channels of at least {','.join(map(str, size))} voxels"
            raise InputError("--example", f"{source} with {image.channels} channels of {image.size} voxels", wants)
        begin = [(n - m) // 2 for n, m in zip(image.size, size, strict=True)]
        return image.read(Box.of_size(begin, size))[None]


def normalised(image: Array, intensity: Mapping[str, Any] | None) -> NDArray[np.float32]:
    """Map grey values as stored, (1, C, Z, Y, X), to what the network takes: float32 in [0, 1]."""
    found = from_plain(intensity)
    if found is None:
        return np.asarray(image / np.float32(255 if image.dtype == np.uint8 else 1), np.float32)
    if isinstance(found, Percentiles):
        found = found.of(EXAMPLE, [image[0]], int(np.prod(image.shape[2:])))
    return found(image[0])[None]
