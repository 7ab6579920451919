"""Shaders of neuroglancer (GLSL) that turn the values of a voxel into a colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepem.utils.geometry import Vec3
from deepem.utils.palette import class_colours

RGB = tuple[float, float, float]
SINGLE: RGB = (1.0, 0.6, 0.0)
"""Colour of a single probability."""


@dataclass(frozen=True)
class Channel:
    """How a channel is drawn.

    Attributes:
        name: Its name in the viewer, an identifier.
        colour: Red, green and blue from 0 to 1.
        shown: Whether it is switched on at first.
    """

    name: str
    colour: RGB
    shown: bool = True


def of_edges(edges: Sequence[Vec3]) -> tuple[Channel, ...]:
    """Return a channel for each edge: red along x, green along y, blue along z, whatever the order of the channels.

    Of several edges with the same colour, the shortest is shown at first.
    """
    colours = [edge_colour(edge) for edge in edges]
    lengths = [sum(d * d for d in edge) for edge in edges]
    shortest = {
        colour: min((length, i) for i, length in enumerate(lengths) if colours[i] == colour)[1] for colour in colours
    }
    axial = {i for colour, i in shortest.items() if max(colour) == 1} or {*shortest.values()}
    names = ["edge_" + "_".join(f"{'m' if d < 0 else ''}{abs(d)}" for d in edge) for edge in edges]
    return tuple(Channel(name, colour, i in axial) for i, (name, colour) in enumerate(zip(names, colours, strict=True)))


def edge_colour(edge: Vec3) -> RGB:
    """Return the colour of an edge (dz, dy, dx): the share of its length along x, y and z as red, green and blue."""
    z, y, x = (abs(d) for d in edge)
    total = z + y + x
    return x / total, y / total, z / total


def in_order(count: int) -> tuple[Channel, ...]:
    """Return three or fewer channels as red, green and blue, in the order of the file."""
    return tuple(Channel(f"channel_{i}", (float(i == 0), float(i == 1), float(i == 2))) for i in range(count))


def of_classes(count: int, background: bool) -> tuple[Channel, ...]:
    """Return a channel for each class in the colours of all other pictures.

    Args:
        count: Number of channels.
        background: Whether channel 0 is the background, which is not shown at first.
    """
    if count == 1 and not background:
        return (Channel("probability", SINGLE),)
    colours = class_colours(count if background else count + 1)[0 if background else 1 :]
    return tuple(
        Channel(f"channel_{i}", (float(r), float(g), float(b)), shown=i > 0 or not background)
        for i, (r, g, b) in enumerate(colours)
    )


def grey(low: float, high: float) -> str:
    """Return the shader of an image whose values from `low` to `high` become black to white."""
    return (
        f"#uicontrol invlerp normalized(range=[{low:.9g}, {high:.9g}])\n"
        "void main() {\n  emitGrayscale(normalized());\n}\n"
    )


def sums(channels: Sequence[Channel]) -> str:
    """Return the shader of affinities: each channel adds its colour, so that a joined voxel is white.

    Each of red, green and blue is the mean of the channels that are switched on, weighted by their share of it.
    """
    body = "  vec3 sum = vec3(0.0);\n  vec3 weight = vec3(0.0);\n" + "".join(
        f"  if ({one.name}) {{ sum += {_vec3(one.colour)} * toNormalized(getDataValue({i})); "
        f"weight += {_vec3(one.colour)}; }}\n"
        for i, one in enumerate(channels)
    )
    return f"{_switches(channels)}void main() {{\n{body}  emitRGB(sum / max(weight, vec3(1e-6)));\n}}\n"


def overlays(channels: Sequence[Channel]) -> str:
    """Return the shader of probabilities: opaque where a channel is 1, transparent where all are 0."""
    if len(channels) == 1:
        red, green, blue = (round(255 * v) for v in channels[0].colour)
        return (
            f'#uicontrol vec3 colour color(default="#{red:02x}{green:02x}{blue:02x}")\n'
            "void main() {\n  emitRGBA(vec4(colour, toNormalized(getDataValue(0))));\n}\n"
        )
    body = "  vec3 sum = vec3(0.0);\n  float total = 0.0;\n  float most = 0.0;\n" + "".join(
        f"  if ({one.name}) {{ float p = toNormalized(getDataValue({i})); sum += p * {_vec3(one.colour)}; "
        "total += p; most = max(most, p); }\n"
        for i, one in enumerate(channels)
    )
    return f"{_switches(channels)}void main() {{\n{body}  emitRGBA(vec4(sum / max(total, 1e-6), most));\n}}\n"


def _switches(channels: Sequence[Channel]) -> str:
    return "".join(f"#uicontrol bool {one.name} checkbox(default={str(one.shown).lower()})\n" for one in channels)


def _vec3(colour: RGB) -> str:
    return "vec3({:.4f}, {:.4f}, {:.4f})".format(*colour)
