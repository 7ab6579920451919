"""Batch images of several sizes for a network, and map detections back to the original images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Target = Mapping[str, Any]
"""Objects in an image: ``boxes`` (N, 6) and ``labels`` (N,), 1 and up; and their masks, either as ``masks``
(N, Z, Y, X), or as ``volume`` (C, Z, Y, X) of ids with the ``channels`` (N,) and ``ids`` (N,) of the objects in it.
``valid`` (Z, Y, X) is false where nothing is known about objects."""


@dataclass(frozen=True)
class ImageList:
    """A batch of images of several sizes.

    Attributes:
        tensors: (N, C, Z, Y, X), each image at the origin, padded with zeros.
        image_sizes: (z, y, x) of each image.
    """

    tensors: Tensor
    image_sizes: list[Vec3]


class GeneralizedRCNNTransform(nn.Module):
    """Normalise, resize and batch images together with their boxes and masks.

    Args:
        min_size: Resize the shorter side of an image to this many voxels. With several values, training draws one and
            evaluation uses the last. None turns resizing off.
        max_size: Limit of the longer side after resizing; None for no limit.
        image_mean: Value to subtract from each channel.
        image_std: Value to divide each channel by, after that.
        size_divisible: Pad batches to multiples of this, one number or (z, y, x).
        generator: Draws the size if there are several; by default torch's own generator.
    """

    def __init__(
        self,
        min_size: int | Sequence[int] | None,
        max_size: int | None,
        image_mean: Sequence[float] = (0.0,),
        image_std: Sequence[float] = (1.0,),
        size_divisible: int | Sequence[int] = 32,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(image_std, default=0) <= 0:
            raise InputError("image_std", list(image_std), "a number above 0 for each channel")
        sizes = [min_size] if isinstance(min_size, int) else list(min_size or [])
        if min([*sizes, max_size or 1]) < 1:
            raise InputError("min_size, max_size", f"{min_size}, {max_size}", "1 voxel or more")
        self.min_size, self.max_size = tuple(sizes), max_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.size_divisible = vec3([size_divisible] * 3 if isinstance(size_divisible, int) else size_divisible)
        self.generator = generator

    def forward(
        self, images: Tensor | Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """Return a batch for the network, and the targets in voxels of the batch.

        Args:
            images: Each (C, Z, Y, X).
            targets: One per image.
        """
        made = []
        found: list[Target] | None = None if targets is None else []
        for number, image in enumerate(images):
            old = vec3(image.shape[1:])
            new = self.resized(old)
            made.append(_interpolated(self.normalize(image), new))
            if found is not None and targets is not None:
                found.append(resize_target(targets[number], old, new))
        return self.batch(made), found

    def normalize(self, image: Tensor) -> Tensor:
        """(image - mean) / std per channel."""
        if self.image_mean == (0.0,) and self.image_std == (1.0,):
            return image
        for name, values in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if len(values) not in (1, image.shape[0]):
                raise InputError(name, list(values), f"one number, or one for each of {image.shape[0]} channels")
        mean, std = (image.new_tensor(values).view(-1, 1, 1, 1) for values in (self.image_mean, self.image_std))
        return (image - mean) / std

    def resized(self, size: Vec3) -> Vec3:
        """The size that an image is resized to."""
        if not self.min_size:
            factor = 1.0 if self.max_size is None else min(self.max_size / max(size), 1.0)
        else:
            chosen = len(self.min_size) - 1
            if self.training and chosen:
                chosen = int(torch.randint(chosen + 1, (1,), generator=self.generator))
            factor = self.min_size[chosen] / min(size)
            if self.max_size is not None:
                factor = min(factor, self.max_size / max(size))
        return vec3(max(int(n * factor + 1e-9), 1) for n in size)

    def batch(self, images: Sequence[Tensor]) -> ImageList:
        """Stack images (C, Z, Y, X), padded at the end of each axis."""
        sizes = [vec3(image.shape[1:]) for image in images]
        largest = [max(along) for along in zip(*sizes, strict=True)]
        padded = [-(-n // by) * by for n, by in zip(largest, self.size_divisible, strict=True)]
        if all(size == tuple(padded) for size in sizes):
            return ImageList(torch.stack(list(images)), sizes)
        out = images[0].new_zeros(len(images), images[0].shape[0], *padded)
        for into, image, (z, y, x) in zip(out, images, sizes, strict=True):
            into[:, :z, :y, :x] = image
        return ImageList(out, sizes)

    def boxes_back(self, boxes: Tensor, size: Vec3, original: Vec3) -> Tensor:
        """Convert boxes in a resized image to voxels of the original image."""
        return resize_boxes(boxes, size, original)


def resize_boxes(boxes: Tensor, old: Vec3, new: Vec3) -> Tensor:
    """Scale boxes (N, 6) from a volume of one size (z, y, x) to another."""
    if old == new:
        return boxes
    factors = [b / a for a, b in zip(old, new, strict=True)]
    return boxes * boxes.new_tensor([*factors, *factors])


def resize_target(target: Target, old: Vec3, new: Vec3) -> Target:
    """Resize a target from one image size (z, y, x) to another; ids by nearest neighbour."""
    if old == new:
        return target
    found = {**target, "boxes": resize_boxes(target["boxes"], old, new)}
    for name in ("masks", "volume", "valid"):
        if target.get(name) is not None:
            found[name] = _nearest(target[name], new)
    return found


def _nearest(volume: Tensor, size: Vec3) -> Tensor:
    """Resize (..., Z, Y, X) of any dtype by nearest neighbour, like `F.interpolate`."""
    for axis, n in zip((-3, -2, -1), size, strict=True):
        at = torch.arange(n, device=volume.device) * volume.shape[axis] // n
        volume = volume.index_select(axis, at)
    return volume


def _interpolated(image: Tensor, size: Vec3) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="trilinear", align_corners=False)[0]
