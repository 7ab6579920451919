"""Convert label volumes to the targets of a detector on the device: boxes, classes and masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepem.models.detection.boxes import extent
from deepem.utils.crop import centre_slices
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

FEW = 1 << 22
"""Ids up to this value are counted in a table; larger ones are sorted."""


@torch.no_grad()
def from_labels(
    labels: Tensor, *, classes: Tensor | None = None, mask: Tensor | None = None, min_voxels: int = 1
) -> dict[str, Any]:
    """Extract the objects of a label volume.

    Args:
        labels: (C, Z, Y, X) or (Z, Y, X) whole numbers, 0 for background. With one channel, all objects have class 1 or
            the class given by `classes`; with several channels, objects in channel c have class c + 1.
        classes: (M, 2) rows (id, class), in any order; rows of id 0 are padding. The class of an object is unknown if
            it is 0 or not listed; its voxels then count as unknown.
        mask: (Z, Y, X), 0 where nothing is known. Objects with less than half of their voxels outside the mask are
            kept.
        min_voxels: Objects of fewer voxels count as unknown.

    Returns:
        A target: ``boxes`` (N, 6) float32, ``labels`` (N,) int64, ``volume`` (C, Z, Y, X), ``channels`` and ``ids``
        (N,) int64, where object n is ``volume[channels[n]] == ids[n]``, ``voxels`` (N,), and ``valid`` (Z, Y, X) bool,
        or None if everything is known.
    """
    if labels.ndim not in (3, 4) or labels.is_floating_point() or labels.is_complex():
        raise InputError("labels", f"{labels.dtype} of shape {tuple(labels.shape)}", "whole numbers, (C, Z, Y, X)")
    volume = labels[None] if labels.ndim == 3 else labels
    known = None if mask is None or bool((mask > 0).all()) else mask.reshape(volume.shape[1:]) > 0
    valid = known
    found: list[tuple[Tensor, ...]] = []
    for channel, one in enumerate(volume):
        ids, number = _numbered(one)
        boxes, voxels = _boxes(number, len(ids))
        labelled = torch.full_like(ids, channel + 1) if classes is None or len(volume) > 1 else _looked_up(ids, classes)
        good = (labelled > 0) & (voxels >= min_voxels)
        if known is not None:
            seen = torch.bincount(number[known].flatten(), minlength=len(ids) + 1)[1:]
            good &= 2 * seen >= voxels
        if not bool(good.all()):
            unknown = torch.cat([good.new_zeros(1), ~good])[number]
            valid = ~unknown if valid is None else valid & ~unknown
        found.append((boxes[good], labelled[good], torch.full_like(ids, channel)[good], ids[good], voxels[good]))
    boxes, labelled, channels, ids, voxels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {
        "boxes": boxes,
        "labels": labelled,
        "volume": volume,
        "channels": channels,
        "ids": ids,
        "voxels": voxels,
        "valid": valid,
    }


def placed(labels: Tensor, mask: Tensor | None, size: Vec3) -> tuple[Tensor, Tensor | None]:
    """Pad labels (C, z, y, x) of a volume's centre to the whole volume, (C, Z, Y, X). Also return the known region."""
    inner = vec3(labels.shape[1:])
    if inner == size:
        return labels, mask
    inside = (..., *centre_slices(size, inner))
    whole, known = labels.new_zeros(len(labels), *size), labels.new_zeros(size, dtype=torch.bool)
    whole[inside] = labels
    known[inside] = True if mask is None else mask > 0
    return whole, known


def masks_of(target: dict[str, Any]) -> Tensor:
    """Build the masks (N, Z, Y, X) bool from a target of `from_labels`, each as large as the volume."""
    masks: Tensor = target["volume"][target["channels"]] == target["ids"].view(-1, 1, 1, 1)
    return masks


def _numbered(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Ids of a volume without 0, ascending, and the volume renumbered from 1 in this order."""
    labels = labels.long()
    least, most = (int(value) for value in labels.aminmax()) if labels.numel() else (0, 0)
    if least >= 0 and most < FEW:
        there = torch.zeros(most + 1, dtype=torch.bool, device=labels.device)
        there[labels.flatten()] = True
        there[0] = False
        return there.nonzero()[:, 0], (there.cumsum(0) * there)[labels]
    ids, number = labels.unique(return_inverse=True)
    if not bool((ids == 0).any()):
        return ids, number + 1
    zero = int((ids == 0).nonzero())
    number = torch.where(number < zero, number + 1, number.where(number != zero, 0))
    return ids[ids != 0], number


def _boxes(number: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, 6) float32 and sizes in voxels of the objects 1..N of a volume."""
    boxes = torch.zeros(count, 6, device=number.device)
    for axis, length in enumerate(number.shape):
        view = [1, 1, 1]
        view[axis] = length
        place = number * length + torch.arange(length, device=number.device).view(view)
        present = torch.zeros((count + 1) * length, dtype=torch.bool, device=number.device)
        present[place.flatten()] = True
        boxes[:, axis], boxes[:, axis + 3] = extent(present.view(count + 1, length)[1:])
    return boxes, torch.bincount(number.flatten(), minlength=count + 1)[1:]


def _looked_up(ids: Tensor, classes: Tensor) -> Tensor:
    """Look up the class of each id in a table of rows (id, class); 0 for an id that is not listed."""
    rows = classes.to(ids.device).long()
    rows = rows[rows[:, 0] != 0]
    rows = rows[rows[:, 0].argsort(stable=True)]
    if not len(rows):
        return torch.zeros_like(ids)
    at = torch.searchsorted(rows[:, 0].contiguous(), ids).clamp(max=len(rows) - 1)
    return rows[at, 1].where(rows[at, 0] == ids, 0)
