"""Tables of learned positions: one of all tokens, or the sum of tables along single axes."""

from __future__ import annotations

from typing import Literal

from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

Positions = bool | Literal["whole", "z_yx", "z_y_x"]
"""Which tables there are; false is "whole", and true "z_yx", as in the authors' code."""


def position_grids(kind: Positions, tokens: Vec3) -> dict[str, Vec3]:
    """Name and grid (z, y, x) of each table of positions in the model."""
    z, y, x = tokens
    whole: dict[str, Vec3] = {"pos_embed": tokens}
    two: dict[str, Vec3] = {"pos_embed_spatial": (1, y, x), "pos_embed_temporal": (z, 1, 1)}
    three: dict[str, Vec3] = {"pos_embed_z": (z, 1, 1), "pos_embed_y": (1, y, 1), "pos_embed_x": (1, 1, x)}
    kinds: dict[Positions, dict[str, Vec3]] = {"whole": whole, "z_yx": two, "z_y_x": three, False: whole, True: two}
    if kind not in kinds:
        raise InputError("positions", kind, "one of whole, z_yx, z_y_x")
    return kinds[kind]
