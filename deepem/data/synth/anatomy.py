"""Generate the anatomy of a volume: the cell, vessel, sheath or mitochondrion to which each voxel belongs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepem.data.synth.fields import Field, Labels, Plane, depth, stream
from deepem.data.synth.neurites import Neurites, cells, grow
from deepem.data.synth.organelles import Mitochondria, Vessel
from deepem.utils.geometry import Vec3

WARPS = ((44, 10.0, 4.0), (17, 3.2, 2.4), (9, 1.0, 1.5))
"""(voxels between nodes, displacement in voxels, sections) of the fields that bend the borders between cells."""

SHEET = 2
"""Marks sheets of glia until they are numbered."""

CRUMB = 400
"""Voxels below which a piece of a sheet is dropped."""


@dataclass(frozen=True)
class Anatomy:
    """Labels (Z, Y, X) of everything but synapses, and the data needed to draw the image.

    Attributes:
        neurites: The course of every neurite.
        seg: Instances; they touch without a gap. The vessel's lumen is one too; 0 is myelin only.
        mit, mye, glia: 1 where there is one.
        blv: 1 in the lumen of the blood vessel, 2 in its wall.
        organelle: Grey value of mitochondria, 0 elsewhere.
        wall: Id of the vessel's wall; its lumen has the next one.
        glial: Whether a cell is glia, by id; ids from `glial.size` on are sheets of glia.
        sheathed: Whether an axon has myelin, by id.
    """

    neurites: Neurites
    seg: Labels
    mit: NDArray[np.uint8]
    mye: NDArray[np.uint8]
    glia: NDArray[np.uint8]
    blv: NDArray[np.uint8]
    organelle: NDArray[np.uint8]
    wall: int
    glial: NDArray[np.bool_]
    sheathed: NDArray[np.bool_]


def build(name: str, size: Vec3) -> Anatomy:
    """Generate the anatomy of a volume from its name."""
    neurites = grow(stream(name, "neurites"), size)
    wall = neurites.count + 1
    rng = stream(name, "kinds")
    sheathed = _sheathed(rng, neurites, size)
    glial = np.zeros(neurites.count + 3, bool)
    slender = neurites.radius.mean(axis=0) < 26
    glial[1:wall] = (rng.random(neurites.count) < 0.06) & slender & ~sheathed[1:wall]
    mit, mye, glia, blv, organelle = (np.zeros(size, np.uint8) for _ in range(5))
    seg = np.zeros(size, np.int32)
    tissue = Anatomy(neurites, seg, mit, mye, glia, blv, organelle, wall, glial, sheathed)
    sections = _Sections(name, size, tissue)
    for z in range(size[0]):
        sections.fill(z)
    _number_sheets(tissue)
    return tissue


def _sheathed(rng: np.random.Generator, neurites: Neurites, size: Vec3) -> NDArray[np.bool_]:
    """The axons with myelin: a few of middling width that stay in the volume, at least one."""
    radius = neurites.radius.mean(axis=0)
    inside = ((neurites.centre > 0) & (neurites.centre < np.array(size[1:]))).all(axis=2).mean(axis=0)
    fit = inside - 0.05 * np.abs(radius - 26) + rng.uniform(0, 0.4, len(radius))
    chosen = np.zeros(neurites.count + 3, bool)
    chosen[np.argsort(-fit)[: max(1, round(size[1] * size[2] / 300**2))] + 1] = True
    return chosen


class _Sections:
    """Fills the sections of an anatomy one by one."""

    def __init__(self, name: str, size: Vec3, tissue: Anatomy) -> None:
        self.tissue = tissue
        self.vessel = Vessel.draw(stream(name, "vessel"), size)
        self.mitochondria = Mitochondria.draw(stream(name, "mitochondria"), tissue.neurites, size)
        rng = stream(name, "warp")
        self.warps = [(axis, by, Field.draw(rng, size, step, over)) for step, by, over in WARPS for axis in (0, 1)]
        self.jitter = rng.normal(0, 0.6, (size[0], 2))
        self.gap = Field.draw(stream(name, "glia"), size, 56, 3)
        self.sheath = (0.3 * tissue.neurites.radius.mean(axis=0)).clip(3, 9)
        self.cristae = stream(name, "cristae")
        self.grid = np.mgrid[: size[1], : size[2]].astype(np.float32)

    def fill(self, z: int) -> None:
        """Write section z of every label."""
        tissue = self.tissue
        y, x, inside = self.vessel.push(z, *self._bent(z))
        seg = cells(tissue.neurites.discs(z), y, x)
        lumen = inside > self.vessel.wall
        seg[inside > 0] = tissue.wall
        seg[lumen] = tissue.wall + 1
        tissue.blv[z] = np.where(lumen, 1, 2 * (inside > 0))
        deep = depth(seg)
        plain = (seg > 0) & (seg < tissue.wall) & ~tissue.sheathed[seg]
        gap = 3.6 * (self.gap.section(z) - 0.75)
        sheet = plain & (deep < gap.clip(0, 6)) & (gap > 1.2)
        sheath = self._myelin(seg, deep)
        seg[sheath] = 0
        tissue.seg[z], tissue.mye[z] = seg, sheath
        tissue.glia[z] = np.where(sheet, SHEET, tissue.glial[seg])
        seg[sheet] = len(tissue.glial)
        tissue.organelle[z] = self.mitochondria.paint(self.cristae, z, tissue.neurites, seg, (y, x))
        tissue.mit[z] = tissue.organelle[z] > 0

    def _myelin(self, seg: Labels, deep: Plane) -> NDArray[np.bool_]:
        """The sheaths of a section: the rim of each axon with myelin, its inside rounded, never closed."""
        sheath = np.zeros(seg.shape, bool)
        for cell in np.flatnonzero(self.tissue.sheathed):
            axon = seg == cell
            if axon.any():
                rim = min(float(self.sheath[cell - 1]), 0.45 * float(deep[axon].max()))
                inside: Plane = cv2.GaussianBlur((axon & (deep > rim)).astype(np.float32), (0, 0), 3.5)
                sheath |= axon & ((inside < 0.5 * inside[axon].max()) | (deep <= 0.6 * rim))
        return sheath

    def _bent(self, z: int) -> tuple[Plane, Plane]:
        """Return the tissue positions that a section's voxels show, before the vessel pushes the tissue aside."""
        at = self.grid + self.jitter[z].astype(np.float32)[:, None, None]
        for axis, by, field in self.warps:
            at[axis] += by * field.section(z)
        return at[0], at[1]


def _number_sheets(tissue: Anatomy) -> None:
    """Give each connected sheet of glia an id of its own; its crumbs stay with the cells they were cut from."""
    sheet = tissue.glia == SHEET
    pieces, _ = ndimage.label(sheet, output=np.int32)
    piece = pieces[sheet]
    whole = np.bincount(piece, minlength=1) >= CRUMB
    number = np.where(whole, np.cumsum(whole) + (len(tissue.glial) - 1), 0)[piece]
    tissue.seg[sheet] = np.where(number > 0, number, tissue.seg[sheet])
    tissue.glia[sheet] = number > 0
