"""Metadata of the levels of OME-NGFF images, versions 0.1 to 0.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepem.utils.errors import InputError

NANOMETRES = {"angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6, "meter": 1e9}


def first_level(name: str, attributes: Mapping[str, Any]) -> str | None:
    """Return the name of the finest level's array; None if the group is not an image.

    Raises:
        InputError: the metadata are invalid.
    """
    image = _image(attributes)
    if image is None:
        return None
    try:
        return str(image["datasets"][0]["path"])
    except (LookupError, TypeError) as error:
        raise InputError(name, "multiscales without datasets", "OME-NGFF metadata") from error


def described(name: str, attributes: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return ``voxel_size_nm`` of a level, (z, y, x), if the metadata give it with a unit.

    Raises:
        InputError: the last three axes are not z, y and x.
    """
    image = _image(attributes)
    if image is None:
        return {}
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", ())]
    names = "".join(str(axis.get("name")) for axis in axes)
    if axes and not names.endswith("zyx"):
        raise InputError(name, f"an image with the axes {', '.join(names)}", "axes that end with z, y, x")
    try:
        level = next(one for one in image["datasets"] if str(one["path"]).strip("/") == key.strip("/"))
        scale = next(t["scale"] for t in level["coordinateTransformations"] if t["type"] == "scale")
        more = [t["scale"] for t in image.get("coordinateTransformations", ()) if t["type"] == "scale"]
        size = [float(s) * NANOMETRES[axis["unit"]] for s, axis in zip(scale[-3:], axes[-3:], strict=True)]
        for whole in more:  # the image's own scale, which multiplies that of every level
            size = [n * float(s) for n, s in zip(size, whole[-3:], strict=True)]
    except (LookupError, StopIteration, TypeError, ValueError):
        return {}
    return {"voxel_size_nm": size}


def _image(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    held = attributes.get("ome", attributes)  # version 0.5 nests everything under "ome"
    images = held.get("multiscales") if isinstance(held, Mapping) else None
    first = images[0] if isinstance(images, list) and images else None
    return first if isinstance(first, Mapping) else None
