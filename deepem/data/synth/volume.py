"""Generate a synthetic EM volume of brain tissue from a name and a size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.synth.anatomy import build
from deepem.data.synth.fields import stream
from deepem.data.synth.render import Renderer
from deepem.data.synth.synapses import Synapses
from deepem.utils.geometry import Vec3


def make_volume(name: str, size: Vec3) -> dict[str, NDArray[Any]]:
    """Return the image (Z, Y, X) uint8 and all labels; the same name and size always give the same voxels.

    `seg` is int32 and holds instances that touch without a gap, including the lumen of the vessel; only myelin is 0.
    The other labels are uint8: `psd`, `mit`, `mye`, `fld`, `glia` are 0 and 1; `syn` is 1 on the presynaptic and 2 on
    the postsynaptic side; `blv` is 1 in the blood vessel's lumen and 2 in its wall. A smaller size gives a different
    volume, not a part of the larger one.
    """
    tissue = build(name, size)
    able = np.zeros(max(int(tissue.seg.max()), tissue.wall + 1) + 1, bool)
    roomy = tissue.neurites.radius.mean(axis=0) > 11
    able[1 : tissue.wall] = roomy & ~(tissue.glial | tissue.sheathed)[1 : tissue.wall]
    synapses = Synapses.place(stream(name, "synapses"), tissue.seg, able)
    renderer = Renderer(name, tissue, synapses)
    img, fld = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for z in range(size[0]):
        img[z], fld[z] = renderer.section(z)
    return {
        "img": img,
        "seg": tissue.seg,
        "syn": synapses.syn,
        "psd": synapses.psd,
        "mit": tissue.mit,
        "mye": tissue.mye,
        "fld": fld,
        "blv": tissue.blv,
        "glia": tissue.glia,
    }
