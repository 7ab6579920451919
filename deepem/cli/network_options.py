"""The options of the network and its sizes, which training and inference share."""

from __future__ import annotations

from dataclasses import dataclass

from deepem.cli import words
from deepem.cli.flags import Group, flag
from deepem.utils.geometry import Vec3

DEFAULT_FOV: Vec3 = (20, 256, 256)


@dataclass(frozen=True)
class NetworkOptions(Group):
    """The network and its sizes."""

    title = "network"
    model: str | None = flag(None, "model module", metavar="MODULE")
    backbone: str | None = flag(None, "backbone module, for models that take one", metavar="MODULE")
    fov: Vec3 | None = flag(
        None, "field of view of the network (default: 20,256,256)", read=words.size, metavar="Z,Y,X"
    )
    inputsz: Vec3 | None = flag(None, "input patch (default: --fov)", read=words.size, metavar="Z,Y,X")
    outputsz: Vec3 | None = flag(None, "output patch (default: what the model gives)", read=words.size, metavar="Z,Y,X")
