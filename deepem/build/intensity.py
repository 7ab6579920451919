"""Turns --intensity into the grey-value range of every volume."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepem.build.selection import Ref
from deepem.build.volumes import leaves
from deepem.data.drawn import Drawn, seen
from deepem.utils.errors import InputError
from deepem.utils.intensity import Intensity, Percentiles, from_plain, slabs

SUGGESTED = Percentiles(0.5, 99.5)


@dataclass(frozen=True)
class GreyValues:
    """What a run does with grey values.

    Attributes:
        stored: The ranges as a checkpoint stores them, in plain numbers; None for bytes and floats in [0, 1].
        notes: One line about each volume.
    """

    stored: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def with_ranges(
    words: Sequence[Any], percentiles: Percentiles, over: str, refs: Mapping[str, Sequence[Ref]], loaded: dict[str, Any]
) -> tuple[dict[str, Any], GreyValues]:
    """Return the volumes, each image with its grey-value range, and the `GreyValues` of the run.

    Args:
        words: The values of --intensity: ``none``, ``percentile``, or a (low, high) for each channel.
        percentiles: The low and high percentile for ``percentile``.
        over: Compute percentiles over the training set (``train``) or over each ``volume``.
        refs: The volumes of each phase.
        loaded: Arrays by id, as returned by the dataset modules.

    Raises:
        InputError: an image is constant, or a range is not valid.
    """
    if words == ["none"]:
        return loaded, GreyValues()
    if words != ["percentile"]:
        if any(isinstance(word, str) for word in words):
            raise InputError("--intensity", " ".join(map(str, words)), "none, percentile, or LOW,HIGH for each channel")
        fixed = Intensity(tuple(words))
        made: Mapping[int, Intensity] | Intensity = fixed
        stored = fixed.plain()
    elif over == "train":
        images = [_image(leaf) for ref in refs["train"] for leaf in leaves(loaded[ref.word])]
        fixed = percentiles.of("--intensity percentile", *_blocks(images))
        made, stored = fixed, fixed.plain()
    else:
        every = {id(leaf): (word, leaf) for word, volume in loaded.items() for leaf in leaves(volume)}
        made = {key: percentiles.of(word, *_blocks([_image(leaf)])) for key, (word, leaf) in every.items()}
        stored = percentiles.plain()
    notes: list[str] = []
    return {word: _with(word, volume, made, notes) for word, volume in loaded.items()}, GreyValues(stored, tuple(notes))


def with_stored_range(word: str, volume: Mapping[str, Any], stored: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a volume with its grey-value range, given what a checkpoint stores about the run.

    Raises:
        InputError: the image is constant, or has another number of channels.
    """
    made = from_plain(stored)
    if made is None:
        return volume
    return _with(word, volume, made if isinstance(made, Intensity) else made.of(word, *_blocks([_image(volume)])), [])


def _with(
    word: str, volume: Mapping[str, Any], made: Mapping[int, Intensity] | Intensity, notes: list[str]
) -> dict[str, Any]:
    if "img" not in volume:
        return {name: _with(f"{word}/{name}", part, made, notes) for name, part in volume.items()}
    intensity = made if isinstance(made, Intensity) else made[id(volume)]
    image = _image(volume)
    if len(intensity.ranges) not in (1, len(image)):
        wants = f"1, or {len(image)}, one for each channel of {word}"
        raise InputError("--intensity", f"{len(intensity.ranges)} ranges", wants)
    notes.append(f"{word}: {image.dtype} grey values, {intensity.in_words()} become 0 to 1")
    return {**volume, "intensity": intensity}


def _image(volume: Mapping[str, Any]) -> Any:
    return seen("img", volume["img"])


def _blocks(images: Sequence[Any]) -> tuple[Any, int]:
    voxels = sum(int(np.prod(image.shape[1:])) for image in images)
    parts = (image.blocks() if isinstance(image, Drawn) else slabs(image) for image in images)
    return itertools.chain.from_iterable(parts), voxels


def suggestion(image: Any) -> str:
    """Return advice on the flag to add for an image that is neither bytes nor floats in [0, 1]."""
    given = "--intensity LOW,HIGH or --intensity percentile"
    try:
        found = SUGGESTED.of("img", *_blocks([seen("img", image)]))
    except InputError:
        return given
    ranges = " ".join(f"{low:g},{high:g}" for low, high in found.ranges)
    return f"{given} (its percentiles 0.5 and 99.5: --intensity {ranges})"
