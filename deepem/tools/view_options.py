"""The flags of `deepem view`, and the names of its layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepem.cli import words as readers
from deepem.cli.flags import Group, flag
from deepem.cli.parser import leading, read_group
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

PROGRAM = "deepem view"
EXAMPLE = f"{PROGRAM} img.h5 affinity.h5 seg.h5"
NAMED = re.compile(r"([\w .+-]+)=(.+)", re.S)


@dataclass(frozen=True)
class ViewOptions(Group):
    """What to show, where, and what to write."""

    title = "view"
    kind: dict[str, Literal["image", "segmentation", "affinity", "probability"]] | None = flag(
        None, "show a layer as this (default: what the file's attributes, type and values say)"
    )
    layout: Literal["beside", "4panel", "xy", "xz", "yz", "3d"] | None = flag(
        None, "panels (default: 4panel, or beside if several layers would cover each other)"
    )
    voxel_size: tuple[float, float, float] | None = flag(
        None, "voxel size in nm of files that do not state it (default: that of the other files)"
    )
    position: Vec3 | None = flag(None, "voxel of the first layer to look at (default: the centre)")
    zoom: float | None = flag(
        None, "screen pixels per voxel of the first layer (default: what fits)", read=readers.positive, metavar="X"
    )
    state: Path | None = flag(None, "write the viewer's state as JSON at the start and at the end", metavar="FILE")
    screenshot: Path | None = flag(
        None, "draw this PNG with a headless Chromium and exit, without a browser of your own", metavar="FILE"
    )
    window: tuple[int, int] = flag(
        (1600, 800), "width and height of the screenshot in pixels",
        read=readers.value_of("a width and a height from 16 to 8192: 1600,800", lambda word: read_window(word)),
        metavar="W,H",
    )  # fmt: skip
    host: str = flag("127.0.0.1", "address to serve on; others than this machine's own open the volumes to the network")
    port: int = flag(0, "port to serve on; 0 takes any free one", read=readers.natural, metavar="N")


def read_window(word: str) -> tuple[int, int]:
    """Read ``W,H``; raise ValueError unless both are from 16 to 8192, which browsers can draw."""
    width, height = (int(part) for part in word.split(","))
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise ValueError
    return width, height


def read_words(words: Sequence[str], doc: str | None = None) -> tuple[dict[str, str], ViewOptions]:
    """Return the files by layer name, and the options of a command line.

    Raises:
        InputError: a word of the command line cannot be used.
    """
    files, rest = leading(words)
    own = read_group(PROGRAM, doc, ViewOptions, rest, EXAMPLE)
    if not files:
        raise InputError("FILE", "nothing", f"volumes to show: {EXAMPLE}")
    if own.port > 65535:
        raise InputError("--port", own.port, "a port, 0 to 65535")
    for axis_nm in own.voxel_size or ():
        if not axis_nm > 0:
            raise InputError("--voxel_size", own.voxel_size, "three numbers z,y,x above 0")
    named = name_files(files)
    for name in own.kind or ():
        if name not in named:
            raise InputError("--kind", name, f"NAME=KIND with the name of a layer: {', '.join(named)}")
    return named, own


def name_files(words: Sequence[str]) -> dict[str, str]:
    """Return name -> file of words ``FILE`` or ``NAME=FILE``; names of equal files are told apart by their folders.

    Raises:
        InputError: two words have the same name.
    """
    given = [_split(word) for word in words]
    files = [file for own, file in given if own is None]
    depth = 1
    while depth < 8 and len({_name(file, depth) for file in files}) < len({*files}):
        depth += 1
    plain = [_name(file, 1) for file in files]
    named: dict[str, str] = {}
    for own, file in given:
        name = own or _name(file, 1 if plain.count(_name(file, 1)) == 1 else depth)
        if name in named:
            raise InputError(file, f"a second layer named {name}", "NAME=FILE with another name")
        named[name] = file
    return named


def _split(word: str) -> tuple[str | None, str]:
    """Split ``NAME=FILE``; a word that names an existing file is a file."""
    from deepem.io.formats import split_path

    match = NAMED.fullmatch(word)
    if match is None or Path(split_path(word)[0]).exists():
        return None, word
    return match[1].strip(), match[2]


def _name(file: str, depth: int) -> str:
    """Return the last parts of a path without its suffix; of ``file.h5:volumes/raw``, the file and the array."""
    from deepem.io.formats import split_path

    path, key = split_path(file)
    parts = [part for part in path.split("://")[-1].split("/") if part not in ("", ".")]
    stem = "/".join(parts[-depth:])
    stem = re.sub(r"\.[A-Za-z]\w*$", "", stem) or stem
    return f"{stem}:{key}" if key else stem or file
