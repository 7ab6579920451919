"""Draw the sheet of samples for `deepem preview`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.build.network import patch_sizes
from deepem.build.samplers import create_samplers
from deepem.cli.training import TrainOptions
from deepem.data.loader import generator
from deepem.protocols import TellsVolume
from deepem.tasks import Task
from deepem.tools import output
from deepem.utils.crop import centre_crop
from deepem.utils.errors import InputError
from deepem.utils.frames import boxes_of, frames
from deepem.utils.geometry import Vec3, vec3

Picture = NDArray[np.uint8]
"""(Y, X, 3), in the order blue, green, red, as in OpenCV."""

OUTLINES = ((66, 186, 255), (255, 168, 0), (120, 255, 120), (255, 90, 220), (80, 80, 255), (255, 255, 90))
GAP, HEAD = 4, 22
"""Pixels between pictures, and height of the text line above a sample."""


@dataclass(frozen=True)
class Kind:
    """How to draw the target of a kind of task: filled by instance, as named outlines, or both."""

    ids: Callable[[NDArray[Any]], NDArray[Any] | None]
    names: Callable[[Task], list[str]]
    outlines: Callable[[Task, NDArray[Any]], list[NDArray[Any]]]


def _nothing(*_: Any) -> list[Any]:
    return []


def _channel_names(task: Task) -> list[str]:
    return [f"{task.name} {i + 1}" for i in range(task.channels)] if task.channels > 1 else [task.name]


def _box_frames(task: Task, target: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the frames of the boxes of each class."""
    return [frames(boxes_of(volume), vec3(volume.shape)) for volume in target]


KINDS: dict[str, Kind] = {
    "affinity": Kind(ids=lambda target: target[0], names=_nothing, outlines=_nothing),
    "binary": Kind(ids=lambda target: None, names=_channel_names, outlines=lambda task, target: list(target)),
    "semantic": Kind(
        ids=lambda target: None,
        names=lambda task: [f"{task.name} {c}" for c in range(1, task.channels)],
        outlines=lambda task, target: [target[0] == c for c in range(1, task.channels)],
    ),
    "instance": Kind(ids=lambda target: target.max(0), names=_channel_names, outlines=_box_frames),
}
"""One entry per kind of `deepem.tasks`."""


def describe(options: TrainOptions, phase: str) -> str:
    """Return the recipe as a tree."""
    recipe = options.data.augment
    if not recipe:
        return "no --augment: patches as they are"
    return repr(options.plug_in("augment", recipe).create(phase == "train"))


def sheet(options: TrainOptions, phase: str, samples: int, sections: int) -> Picture:
    """Draw samples one below the other."""
    tasks, seed = options.tasks.chosen, options.run.seed
    sizes = patch_sizes(options.model(), options.inputsz, options.network.outputsz)
    data = create_samplers(options, tasks, sizes)
    for note in data.grey_values.notes:
        output.say(note)
    sampler = data.train if phase == "train" else data.val
    if sampler is None:
        raise InputError("--phase", phase, "train, or ids to evaluate on")
    rows: list[Picture] = []
    for index in range(samples):
        sample = sampler(generator(seed, phase, index))
        name = sampler.which(generator(seed, phase, index)) if isinstance(sampler, TellsVolume) else ""
        rows += [heading(f"sample {index}  {name}", tasks), *draw(sample, tasks, sections, sizes.factor)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_padded(row, width) for row in rows])


def draw(sample: Mapping[str, Any], tasks: Sequence[Task], sections: int, factor: Vec3 = (1, 1, 1)) -> list[Picture]:
    """Draw two rows of sections at the size of the output, `factor` times finer: image, and image with labels."""
    size = vec3(np.asarray(sample[tasks[0].name]).shape[-3:])
    image = np.asarray(sample["input"])[0]
    for axis, times in enumerate(factor):
        image = np.repeat(image, times, axis)
    image = centre_crop(image, size)
    shown = np.unique(np.linspace(0, size[0] - 1, min(sections, size[0])).round().astype(int))
    plain = [cv2.cvtColor((image[z] * 255).clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR) for z in shown]
    marked = [labelled(picture, sample, tasks, int(z)) for picture, z in zip(plain, shown, strict=True)]
    return [_beside(plain), _beside(marked)]


def labelled(picture: Picture, sample: Mapping[str, Any], tasks: Sequence[Task], z: int) -> Picture:
    """Draw a section with its labels."""
    out = picture.astype(np.float32)
    counted = np.zeros(picture.shape[:2], bool)
    for task in tasks:
        counted |= np.asarray(sample[f"{task.name}_mask"])[0, z] > 0
    filled = (KINDS[task.kind].ids(np.asarray(sample[task.name])) for task in tasks)
    ids = next((volume[z] for volume in filled if volume is not None), None)
    if ids is not None:
        colours = _colours(ids)
        out = np.where((ids > 0)[..., None], 0.6 * out + 0.4 * colours, out)
        out[_edges(ids)] *= 0.4
    out = np.where(counted[..., None], out, 0.7 * out + np.array([0, 0, 70], np.float32))
    drawn = np.ascontiguousarray(out.clip(0, 255).astype(np.uint8))
    for colour, channel in zip(_legend(tasks).values(), _binary(sample, tasks), strict=True):
        found, _ = cv2.findContours((channel[z] > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, found, -1, colour, 1)
    return drawn


def heading(text: str, tasks: Sequence[Task]) -> Picture:
    """Draw a line of text and the names of the outlined labels in their colours."""
    words = [(text, (255, 255, 255)), *_legend(tasks).items()]
    line, at = np.zeros((HEAD, 4000, 3), np.uint8), GAP
    for word, colour in words:
        cv2.putText(line, word, (at, HEAD - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        at += cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] + 16
    return line[:, :at]


def _legend(tasks: Sequence[Task]) -> dict[str, tuple[int, int, int]]:
    """Return the colour of each outlined channel by name."""
    names = [name for task in tasks for name in KINDS[task.kind].names(task)]
    return {name: OUTLINES[i % len(OUTLINES)] for i, name in enumerate(names)}


def _binary(sample: Mapping[str, Any], tasks: Sequence[Task]) -> list[Any]:
    """Return the outlined channels (Z, Y, X) in the order of the legend."""
    return [outlined for task in tasks for outlined in KINDS[task.kind].outlines(task, np.asarray(sample[task.name]))]


def _colours(ids: NDArray[Any]) -> NDArray[np.float32]:
    """Return a bright colour for each voxel that depends only on its id."""
    names, at = np.unique(ids, return_inverse=True)
    hues = (names.astype(np.uint64) * np.uint64(2654435761) >> np.uint64(7)) % np.uint64(180)
    hsv = np.stack([hues, np.full_like(hues, 230), np.full_like(hues, 255)], -1).astype(np.uint8)
    table = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2BGR)[0].astype(np.float32)
    colours: NDArray[np.float32] = table[at].reshape(*ids.shape, 3)
    return colours


def _edges(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the voxels whose next neighbour in y or x has another id."""
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    return edge


def _beside(pictures: Sequence[Picture]) -> Picture:
    """Put pictures in a row, with gaps between and below them."""
    padded = [cv2.copyMakeBorder(p, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT) for p in pictures]
    return np.concatenate(padded, axis=1)


def _padded(row: Picture, width: int) -> Picture:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)))
