"""A synthetic volume of brain tissue as electron microscopy shows it, made from nothing but a name and a size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.data.synth.fields import Field, depth, scatter, stream, texture
from deepem.data.synth.neurites import cells, grow
from deepem.data.synth.organelles import Mitochondria, Vessel, microtubules, ring
from deepem.utils.geometry import Vec3

LABELS = ("seg", "syn", "psd", "mit", "mye", "fld", "blv", "glia")


def make_volume(name: str, size: Vec3) -> dict[str, NDArray[Any]]:
    """The volume of a name: the same name and size give the same voxels."""
    out: dict[str, NDArray[Any]] = {"img": np.zeros(size, np.uint8), "seg": np.zeros(size, np.int32)}
    out.update({label: np.zeros(size, np.uint8) for label in LABELS[1:]})
    neurites = grow(stream(name, "neurites"), size)
    vessel = Vessel.draw(stream(name, "vessel"), size)
    mitochondria = Mitochondria.draw(stream(name, "mitochondria"), neurites, size)
    rng = stream(name, "warp")
    warps = [(Field.draw(rng, size, 48, 3), 9.0) for _ in range(2)] + [
        (Field.draw(rng, size, 14, 1.2), 2.2) for _ in range(2)
    ]
    gap = Field.draw(stream(name, "glia"), size, 64, 3)
    rng = stream(name, "section")
    grey = rng.normal(150, 18, neurites.count + 3).astype(np.float32)
    tubes = rng.poisson((neurites.radius.mean(0) / 4).clip(1, 12))
    cell = np.repeat(np.arange(neurites.count), tubes)
    offsets = rng.normal(0, 0.4, (len(cell), 2)) * neurites.radius.mean(0)[cell][:, None]
    wall, glia = neurites.count + 1, neurites.count + 2
    grey[wall], grey[0], grey[glia] = 120, 205, 120
    yy, xx = np.mgrid[: size[1], : size[2]].astype(np.float32)
    for z in range(size[0]):
        y, x = yy.copy(), xx.copy()
        for k, (field, amplitude) in enumerate(warps):
            (y if k % 2 else x)[...] += amplitude * field.section(z)
        y, x, inside = vessel.push(z, y, x)
        seg = cells(neurites.discs(z), y, x)
        seg[inside > 0] = wall
        lumen = inside > vessel.wall
        seg[lumen] = 0
        out["blv"][z] = np.where(lumen, 1, 2 * (inside > 0))
        sheet = (depth(seg) < ((gap.section(z) - 0.8) * 5).clip(0, 5)) & (seg > 0) & (seg != wall)
        seg[sheet] = glia
        out["glia"][z] = sheet
        deep = depth(seg)
        mit, mit_grey = mitochondria.paint(rng, z, neurites, seg, deep, (y, x))
        out["mit"][z], out["seg"][z] = mit, seg
        image = grey[seg] + 9 * texture(rng, seg.shape, 1.2) + 9 * texture(rng, seg.shape, 4.0)
        image -= 30 * microtubules(offsets, cell, neurites.centre[z], seg)
        n = seg.size // 1500
        vesicles = scatter(seg.shape, rng.uniform(0, size[1:], (n, 2)), ring(3.2, 1.2))
        image -= np.where(deep > 6, 40 * vesicles, 0)
        image = np.where(mit > 0, mit_grey + 6 * texture(rng, seg.shape, 1.5), image)
        image = np.where(lumen, 215 + 4 * texture(rng, seg.shape, 3.0), image)
        image -= (image - 62) * np.exp(-((deep / 2.6) ** 2))
        image = cv2.GaussianBlur(image, (0, 0), 0.8)
        image = (image - 130) * rng.normal(1, 0.04) + 130 + rng.normal(0, 4) + 8 * texture(rng, seg.shape, 0)
        out["img"][z] = image.clip(0, 255)
    return out
