"""Render grey values from anatomy: cytoplasm, membranes, organelles, and the artefacts of the microscope."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.data.synth.anatomy import Anatomy
from deepem.data.synth.fields import Field, Labels, Plane, depth, grain, scatter, stream, white
from deepem.data.synth.organelles import dot, ring
from deepem.data.synth.synapses import Synapses
from deepem.utils.geometry import Vec3, vec3

MEMBRANE = 2.6
"""Voxels from the middle of a border to 1/e of its darkness."""


class Renderer:
    """Draws the sections of a volume, in order."""

    def __init__(self, name: str, tissue: Anatomy, synapses: Synapses) -> None:
        self.tissue, self.synapses = tissue, synapses
        size = vec3(tissue.seg.shape)
        rng = stream(name, "looks")
        self.reticulum = Field.draw(rng, size, 9, 0.9)
        self.strength = Field.draw(rng, size, 12, 0.7)
        self.light = Field.draw(rng, size, 160, 0.5)
        self.grey, self.grain, self.tubes = _palette(stream(name, "palette"), tissue)
        self.rng = stream(name, "noise")
        self.spots = _microtubules(stream(name, "microtubules"), tissue)
        self.folds = _folds(stream(name, "fold"), size)
        self.lines: dict[int, Plane] = {}
        self.noise: Plane = np.zeros(size[1:], np.float32)

    def section(self, z: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The image of section z and its fold label; ask for sections 0, 1, 2, ... in turn."""
        seg = self.tissue.seg[z]
        deep = depth(seg)
        self.noise = white(self.rng, seg.shape)
        image = self._cytoplasm(z, seg, deep)
        image = self._organelles(z, seg, deep, image)
        dark = self._membrane(z)
        image += (73 - image).clip(max=0) * dark
        for where, darkening in self.synapses.dark.get(z, ()):
            image[where] -= darkening * ((image[where] - 40) / 90).clip(0, 1)
        fold = self._fold(z, seg.shape)
        image += (34 + 5 * grain(self.noise, 2.0) - image) * fold
        return self._microscope(z, image), (fold > 0.5).astype(np.uint8)

    def _cytoplasm(self, z: int, seg: Labels, deep: Plane) -> Plane:
        image = self.grey[seg] + self.grain[seg] * (0.8 * grain(self.noise, 1.4) + 0.35 * grain(self.noise, 4.5))
        # Reticulum: thin contour lines of a smooth field, dark like a membrane, away from the real ones.
        line = np.exp(-(((np.abs(self.reticulum.section(z)) - 1.0) / 0.17) ** 2))
        image -= self.tubes[seg] * line * self._shade(seg) * (deep > 5)
        return np.asarray(image, np.float32)

    def _shade(self, seg: Labels) -> Plane:
        """Return how much dark structures darken each cell; dark cells darken less."""
        return ((self.grey - 58) / 90).clip(0.3, 1.1)[seg]

    def _organelles(self, z: int, seg: Labels, deep: Plane, image: Plane) -> Plane:
        cell, offset = self.spots
        at = self.tissue.neurites.centre[z, cell] + offset
        y, x = np.rint(at).astype(int).T
        inside = (y >= 0) & (y < seg.shape[0]) & (x >= 0) & (x < seg.shape[1])
        inside[inside] = seg[y[inside], x[inside]] == cell[inside] + 1
        dark = 30 * scatter(seg.shape, at[inside], dot(1.6))
        stray = self.rng.uniform((0, 0), seg.shape, (seg.size // 2600, 2))
        near = self.synapses.cloud.get(z, [])
        rings = scatter(seg.shape, stray, ring(3.3, 1.3)) * (deep > 6)
        rings += scatter(seg.shape, np.concatenate([*near, np.zeros((0, 2))]), ring(3.3, 1.4)) * (deep > 2.5)
        dark += 42 * rings.clip(0, 1.3) * (seg < self.tissue.wall)
        image -= dark * self._shade(seg)
        paint = self.tissue.organelle[z]
        image = np.where(paint > 0, paint + 7 * grain(self.noise, 1.6), image)
        lumen = self.tissue.blv[z] == 1
        if lumen.any():
            image = np.where(lumen, 206 + 5 * grain(self.noise, 5.0), image)
        myelin = self.tissue.mye[z] > 0
        return np.where(myelin, 55 + 14 * np.cos(2.2 * deep), image)

    def _membrane(self, z: int) -> Plane:
        """Darkness of the membranes, [0, 1]; a section has a thickness, so those of its neighbours shine through."""
        last = len(self.tissue.seg) - 1
        return 0.72 * self._line(z) + 0.14 * (self._line(max(z - 1, 0)) + self._line(min(z + 1, last)))

    def _line(self, z: int) -> Plane:
        """Darkness of the membranes at the middle of section z: 1 on a border, weaker here and there."""
        if z not in self.lines:
            self.lines = {k: line for k, line in self.lines.items() if k > z - 3}
            strength = self.strength.section(z)
            width = MEMBRANE * (1 + 0.14 * strength)
            line = np.exp(-((depth(self.tissue.seg[z]) / width) ** 2)) * (0.85 + 0.13 * strength).clip(0.45, 1)
            self.lines[z] = line.astype(np.float32)
        return self.lines[z]

    def _fold(self, z: int, shape: tuple[int, ...]) -> Plane:
        """Coverage by folds, [0, 1]."""
        cover = np.zeros(shape, np.float32)
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        for fold in self.folds:
            if z in fold.sections:
                along = x * fold.way[0] + y * fold.way[1]
                across = y * fold.way[0] - x * fold.way[1] - fold.offset
                bend = fold.sway * np.sin(along / fold.period + fold.phase)
                width = fold.width * (1 + 0.3 * np.sin(along / (0.37 * fold.period)))
                cover = np.maximum(cover, (0.5 + 0.4 * (width - np.abs(across - bend))).clip(0, 1))
        return cover

    def _microscope(self, z: int, image: Plane) -> NDArray[np.uint8]:
        """Blur, brightness and contrast of the section, uneven light, and noise that grows with brightness."""
        rng = self.rng
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.75, 1.05)))
        image = (image - 130) * rng.normal(1, 0.04) + 130 + rng.normal(0, 4) + 3.5 * self.light.section(z)
        noise = white(rng, (image.shape[0], image.shape[1]))
        shot = np.sqrt(image.clip(10) / 130) * (4.0 * noise + 2.6 * grain(noise, 0.8))
        return np.asarray((image + shot).clip(0, 255), np.uint8)


@dataclass(frozen=True)
class Fold:
    """A fold: a dark band, here offset + sway sin(along / period + phase) across the direction `way` = (x, y)."""

    sections: tuple[int, ...]
    way: tuple[float, float]
    offset: float
    sway: float
    period: float
    phase: float
    width: float


def _folds(rng: np.random.Generator, size: Vec3) -> list[Fold]:
    """A fold to every forty sections, at least one, over one section or two."""
    folds = []
    for _ in range(max(1, round(size[0] / 40))):
        first, angle = int(rng.integers(size[0])), rng.uniform(0, np.pi)
        way = (float(np.cos(angle)), float(np.sin(angle)))
        through = rng.uniform(0.25, 0.75, 2) * size[1:]
        folds.append(
            Fold(
                sections=(first, first + 1)[: int(rng.integers(1, 3))],
                way=way,
                offset=float(through[0] * way[0] - through[1] * way[1]),
                sway=float(rng.uniform(4, 14)),
                period=float(rng.uniform(30, 70)),
                phase=float(rng.uniform(0, 6)),
                width=float(rng.uniform(2.5, 7)),
            )
        )
    return folds


def _microtubules(rng: np.random.Generator, tissue: Anatomy) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Neurite index (n,) and offset (n, 2) from its centre, in voxels, of every microtubule."""
    radius = tissue.neurites.radius.mean(axis=0)
    cell = np.repeat(np.arange(len(radius)), rng.poisson((radius / 3).clip(1, 14)))
    return cell, rng.normal(0, 0.4, (len(cell), 2)) * radius[cell][:, None]


def _palette(rng: np.random.Generator, tissue: Anatomy) -> tuple[Plane, Plane, Plane]:
    """By cell id: mean grey, strength of the grain, strength of the reticulum."""
    count = max(int(tissue.seg.max()) + 1, len(tissue.glial))
    radius = np.full(count, 8.0)
    radius[1 : tissue.wall] = tissue.neurites.radius.mean(axis=0)
    glial = np.ones(count, bool)
    glial[: len(tissue.glial)] = tissue.glial
    grey = rng.normal(146, 22, count) + 9 * np.log(radius / 16)
    grey[rng.random(count) < 0.08] -= 38
    grey = np.where(glial, rng.normal(120, 8, count), grey).clip(94, 192)
    grain = np.where(glial, 10, rng.uniform(5, 12, count))
    tubes = rng.uniform(0, 46, count) * (rng.random(count) < 0.65)
    return grey.astype(np.float32), grain.astype(np.float32), tubes.astype(np.float32)
