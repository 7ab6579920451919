"""Pictures of a batch for the log: input, target, mask and prediction of every task, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepem.models.detection.masks import label_volume
from deepem.tasks import Task
from deepem.utils.crop import centre_crop
from deepem.utils.edges import edge_slices
from deepem.utils.frames import boxes_of, colours_of, frames
from deepem.utils.geometry import Vec3, vec3
from deepem.utils.palette import class_colours

Picture = NDArray[np.float32]
"""Pictures, (3, Y, X) float32 in [0, 1]."""

COLOURS = ("red:", "green:", "blue:")

GAP = 2
"""Width in voxels of the white gap between the pictures of a row."""


def _affinity_target(task: Task, ids: Tensor) -> Tensor:
    """Return (E, Z, Y, X): at voxel v, 1 if the edge joins two voxels of one instance; 0 if it leaves the patch."""
    target = torch.zeros((len(task.edges), *ids.shape[-3:]), device=ids.device)
    for channel, edge in zip(target, task.edges, strict=True):
        first, second = edge_slices(edge)
        a, b = ids[0][first], ids[0][second]
        channel[first] = ((a == b) & (a != 0)).to(channel.dtype)
    return target


def _affinity_mask(task: Task, mask: Tensor) -> Tensor:
    """Return (E, Z, Y, X): at voxel v, the product of the masks of the edge's two voxels; 0 if it leaves the patch."""
    found = torch.zeros((len(task.edges), *mask.shape[-3:]), device=mask.device)
    for channel, edge in zip(found, task.edges, strict=True):
        first, second = edge_slices(edge)
        channel[first] = (mask[0][first] * mask[0][second]).to(channel.dtype)
    return found


def _first_channel(task: Task, mask: Tensor) -> Tensor:
    return mask[:1].float()


def _sigmoid(task: Task, output: Any, size: Vec3) -> Tensor:
    logits: Tensor = output[0].float()
    return logits.sigmoid()


def _as_it_is(task: Task, target: Tensor) -> Tensor:
    return target.float()


def _class_target(task: Task, target: Tensor) -> Tensor:
    """Return (3, Z, Y, X): each voxel in the colour of its class."""
    colours = torch.from_numpy(class_colours(task.channels)).to(target.device)
    return colours[target[0].long().clamp(max=task.channels - 1)].movedim(-1, 0)


def _class_prediction(task: Task, output: Any, size: Vec3) -> Tensor:
    """Return (3, Z, Y, X): each voxel in the colour of its most probable class, darker if less probable."""
    logits: Tensor = output[0].float()
    probability, found = logits.softmax(0).max(0)
    return _class_target(task, found[None]) * probability


def _objects_target(task: Task, ids: Tensor) -> Tensor:
    """Return (3, Z, Y, X): each object in its own colour, with the frame of its bounding box."""
    volumes = ids.cpu().numpy()
    return objects_picture(volumes.max(0), np.concatenate([boxes_of(volume) for volume in volumes]))


def _objects_prediction(task: Task, output: Any, size: Vec3) -> Tensor:
    """Return (3, Z, Y, X): the masks of the objects detected in the first sample, with the frames of their boxes."""
    found = {name: value.detach().float().cpu() for name, value in output[0].items() if name != "masks"}
    masks = found.get("mask_probs", torch.zeros(len(found["boxes"]), 1, 1, 1))
    labels = label_volume(masks, found["boxes"], found["scores"], size)
    return objects_picture(labels.numpy(), found["boxes"].numpy())


def objects_picture(ids: NDArray[Any], boxes: NDArray[Any]) -> Tensor:
    """Return (3, Z, Y, X): ids in dark colours, frames of bounding boxes in bright colours."""
    framed = frames(boxes, vec3(ids.shape))
    drawn = np.where(framed[..., None] > 0, colours_of(framed), 0.6 * colours_of(ids))
    return torch.from_numpy(drawn).movedim(-1, 0)


@dataclass(frozen=True)
class Kind:
    """How a kind of task is drawn: functions that turn target, mask and prediction into (C, Z, Y, X) in [0, 1].

    The prediction is that of a whole batch; its first sample is drawn. The third argument is the image size.

    Attributes:
        channels: What the channels show, in words; they become red, green and blue.
    """

    target: Callable[[Task, Tensor], Tensor]
    mask: Callable[[Task, Tensor], Tensor]
    prediction: Callable[[Task, Any, Vec3], Tensor]
    channels: Callable[[Task], Sequence[str]]


def _edges(task: Task) -> list[str]:
    return [f"edge {','.join(map(str, edge))}" for edge in task.edges]


def _numbers(task: Task) -> list[str]:
    return [] if task.channels == 1 else [f"channel {number}" for number in range(task.channels)]


def _one(task: Task) -> list[str]:
    return []


PICTURES: dict[str, Kind] = {
    "affinity": Kind(_affinity_target, _affinity_mask, _sigmoid, _edges),
    "binary": Kind(_as_it_is, _first_channel, _sigmoid, _numbers),
    "semantic": Kind(_class_target, _first_channel, _class_prediction, _one),
    "instance": Kind(_objects_target, _first_channel, _objects_prediction, _one),
}
"""One entry per kind of `deepem.tasks`. Three channels become red, green and blue; others more pictures."""


@torch.no_grad()
def pictures(
    tasks: Iterable[Task], batch: Mapping[str, Tensor], outputs: Mapping[str, Any], factor: Vec3 = (1, 1, 1)
) -> dict[str, Picture]:
    """Return one row of pictures per task: the middle section of the batch's first sample.

    Args:
        tasks: The tasks to draw.
        batch: Input, targets and masks.
        outputs: Logits by output name.
        factor: Voxels of the outputs per voxel of the input, (z, y, x).

    Returns:
        Output name -> (3, Y, X'): from left to right the input, the target, the mask that the loss applies, and the
        prediction. Up to three channels are drawn as red, green and blue, further channels as more pictures.
    """
    rows: dict[str, Picture] = {}
    for task in tasks:
        kind = PICTURES[task.kind]
        target = kind.target(task, batch[task.name][0])
        whole = kind.prediction(task, outputs[task.name], vec3(batch["input"].shape[-3:]))
        prediction = centre_crop(whole, vec3(target.shape[-3:]))
        image = batch["input"][0, :1].float()
        for axis, times in enumerate(factor, 1):
            image = image.repeat_interleave(times, axis)
        image = centre_crop(image, vec3(prediction.shape[-3:]))
        mask = kind.mask(task, batch[f"{task.name}_mask"][0].float())
        middle = prediction.shape[-3] // 2
        sections = [part[:, middle].cpu().numpy() for part in (image, target, mask, prediction)]
        rows[task.name] = beside([colour for section in sections for colour in colours(section)])
    return rows


def in_words(tasks: Iterable[Task], sample: str) -> dict[str, str]:
    """Return output name -> Markdown text that names the panels of each picture and the sample."""
    found = {}
    for task in tasks:
        names = PICTURES[task.kind].channels(task)
        panels = [
            ", ".join(f"{colour} {name}" for colour, name in zip(COLOURS, names[i : i + 3], strict=False))
            for i in range(0, len(names), 3)
        ]
        coloured = f"; channels from left to right: {' | '.join(panels)}" if panels else ""
        found[task.name] = (
            f"From left to right: image, target of {task.name}, mask (white: the voxel counts in the loss), "
            f"prediction{coloured}. The middle section of {sample}."
        )
    return found


def colours(section: NDArray[np.float32]) -> list[Picture]:
    """Split a section (C, Y, X) into pictures of up to three channels: one is grey, two or three are colours."""
    if len(section) == 1:
        return [np.repeat(section, 3, axis=0)]
    found = []
    for start in range(0, len(section), 3):
        part = section[start : start + 3]
        found.append(np.concatenate([part, np.zeros((3 - len(part), *part.shape[1:]), part.dtype)]))
    return found


def beside(parts: Sequence[Picture]) -> Picture:
    """Place pictures of the same height side by side, with white gaps."""
    gap = np.ones((3, parts[0].shape[1], GAP), np.float32)
    row = [piece for part in parts for piece in (part, gap)]
    return np.concatenate(row[:-1], axis=2).clip(0, 1)
