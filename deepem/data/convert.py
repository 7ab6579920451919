"""Convert volumes of any format to prepared volumes: read, check and pad them, and add masks and eroded borders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.borders import eroded
from deepem.data.truth_folder import masks
from deepem.io.files import opened
from deepem.io.volume import VoxelSize
from deepem.utils.errors import InputError

Array = NDArray[Any]
Size = tuple[int, int, int]

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".bmp")
"""Suffixes of picture files that hold one section each."""


def read(path: Path) -> tuple[Array, VoxelSize | None]:
    """Read a volume (Z, Y, X) and its voxel size, if known, in any format of `deepem.io` or from a folder of pictures.

    Raises:
        InputError: The format is unknown, or the volume has channels.
    """
    file = Path(str(path).partition(":")[0]) if not path.exists() else path
    if file.is_dir() and not file.suffix:
        return sections(file), None
    with opened(path) as stored:
        array, voxel_size = stored.whole(), stored.voxel_size_nm
    while array.ndim > 3 and len(array) == 1:  # one channel, one time point
        array = array[0]
    if array.ndim != 3:
        raise InputError(path, f"an array of shape {array.shape}", "(Z, Y, X)")
    return array, voxel_size


def sections(folder: Path) -> Array:
    """Read a folder of pictures as a volume (Z, Y, X), ordered by the numbers in the file names.

    Raises:
        InputError: There are no pictures, or they differ in size or dtype, or they are in colour.
    """
    import cv2

    files = sorted((f for f in folder.iterdir() if f.suffix.lower() in PICTURES), key=_by_number)
    if not files:
        raise InputError(folder, "no pictures", f"sections as {', '.join(PICTURES)}")
    stack: list[Array] = []
    for file in files:
        section = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if section is None:
            raise InputError(file, "a picture that cannot be read", "a whole file")
        if section.ndim == 3 and not (section == section[..., :1]).all():
            raise InputError(file, "a picture in colours", "grey values, or ids as numbers of one channel")
        section = section if section.ndim == 2 else section[..., 0]
        if stack and (section.shape, section.dtype) != (stack[0].shape, stack[0].dtype):
            got = f"{section.shape} {section.dtype}"
            raise InputError(file, got, f"that of {files[0].name}, {stack[0].shape} {stack[0].dtype}")
        stack.append(np.asarray(section))
    return np.stack(stack)


def _by_number(file: Path) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", file.stem)], file.name


def finished(arrays: Mapping[str, Array], pad: Size = (0, 0, 0), share: float = 0.8) -> dict[str, Array]:
    """Return the volumes to write, from an image and labels of the same size (Z, Y, X).

    Args:
        arrays: Arrays by key: img, labels, and optionally msk, the mask of the labelled voxels.
        pad: Voxels to add on each side: the image is mirrored, labels are 0. Padding is masked out in training.
        share: Fraction of the sections to train on; the rest are for evaluation.

    Returns:
        The given arrays and, if there are labels, seg_d3_b0 (ids with eroded borders), msk_train and msk_val.

    Raises:
        InputError: The labels and the image differ in size.
    """
    shape = arrays["img"].shape
    for key, array in arrays.items():
        if array.shape != shape:
            raise InputError(key, f"shape {array.shape}", f"the image's, {shape}")
    width = [(p, p) for p in pad]
    out = {k: np.pad(a, width, mode="symmetric" if k == "img" else "constant") for k, a in arrays.items() if k != "msk"}
    out |= {key: smallest(array) for key, array in out.items() if key != "img"}
    if "seg" in out:
        out["seg_d3_b0"] = eroded(out["seg"])
    if set(out) > {"img"}:
        whole = out["img"].shape
        z, y, x = (slice(p, n - p) for p, n in zip(pad, whole, strict=True))
        hold = np.pad(arrays["msk"] > 0, width) if "msk" in arrays else True
        out |= {key: (mask * hold).astype(np.uint8) for key, mask in masks(whole, (z, y, x), share).items()}
    return out


def smallest(label: Array) -> Array:
    """Convert a label of whole numbers to the smallest dtype that holds them."""
    if label.dtype.kind not in "ui" or not label.size or label.min() < 0:
        return label
    return label.astype(np.min_scalar_type(int(label.max())), copy=False)
