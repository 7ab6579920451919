"""Write synthetic volumes to disk, in the layout that a dataset module or deepem forward reads.

    deepem synthesize --layout cremi_b
    deepem synthesize --layout synthetic --ids t1 t2

Layout cremi_b replaces CREMI sample B: deepem train --data deepem.data.dataset.flyem.cremi_b trains on it. Layout
synthetic writes <data_dir>/<id>/img.h5 and its labels. They are the same, voxel by voxel, as --data synthetic makes for
that id with --synth_size equal to --size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.cli.one_line import OneLineParser
from deepem.data.borders import eroded
from deepem.data.dataset.flyem import cremi_b
from deepem.data.synth.volume import make_volume
from deepem.data.truth_folder import masks, write_folder
from deepem.tools import output
from deepem.utils.errors import InputError

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Layout:
    """A layout: its default ids and size, the folder of an id, and a last change to a volume before it is written."""

    ids: tuple[str, ...]
    size: Size
    folder: Callable[[str], str]
    finish: Callable[[dict[str, Any]], dict[str, Any]]


def like_cremi(volume: dict[str, Any]) -> dict[str, Any]:
    """Return the volumes of the cremi_b folder; as in CREMI, the image extends beyond the labels by a margin.

    The margin leaves room for a patch of 20x256x256 around every training voxel, and around most of them for the larger
    patch that a warp needs.
    """
    shape = volume["img"].shape
    margin = [min(most, n // 4) for most, n in zip((10, 128, 128), shape, strict=True)]
    z, y, x = (slice(m, n - m) for m, n in zip(margin, shape, strict=True))
    return {**volume, "seg_d3_b0": eroded(volume["seg"]), **masks(shape, (z, y, x), 0.7)}


LAYOUTS = {
    "synthetic": Layout(("t1", "t2"), (32, 512, 512), str, lambda volume: volume),
    "cremi_b": Layout(("cremi_b",), (56, 704, 704), lambda _: cremi_b.FOLDER, like_cremi),
}


def size_of(text: str) -> Size:
    """Parse three integers, z,y,x."""
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError("--size", text, "z,y,x voxels") from None
    if min(z, y, x) < 4:
        raise InputError("--size", text, "four voxels or more along each axis")
    return z, y, x


def main(words: Sequence[str]) -> int:
    """Write the volumes."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser("deepem synthesize", description=__doc__, formatter_class=as_written)
    parser.add_argument("--layout", choices=LAYOUTS, default="synthetic", help="dataset module that will read them")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder to write into (default: data)")
    parser.add_argument("--ids", nargs="+", help="volumes to make, each with different tissue (default: by layout)")
    parser.add_argument("--size", help="z,y,x voxels of each volume (default: by layout)")
    with output.errors_of(parser.prog):
        args = parser.parse_args(words)
        layout = LAYOUTS[args.layout]
        if args.ids and args.layout != "synthetic":
            raise InputError("--ids", args.ids[0], f"none: layout {args.layout} has the volume {layout.ids[0]} only")
        size = layout.size if args.size is None else size_of(args.size)
        for word in args.ids or ():
            if Path(word) == Path() or Path(word).is_absolute() or ".." in Path(word).parts:
                raise InputError("--ids", word, "the name of a folder inside --data_dir")
        output.check_folder("--data_dir", args.data_dir)
        for word in args.ids or layout.ids:
            folder = args.data_dir / layout.folder(word)
            volumes = layout.finish(make_volume(word, size))
            with output.writing("--data_dir", args.data_dir):
                write_folder(folder, volumes, f"Synthetic tissue, made from '{word}' by deepem synthesize.")
            output.say(f"{folder}: {', '.join(volumes)}, {'x'.join(map(str, size))}")
    return 0
