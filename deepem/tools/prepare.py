"""Convert a public data set into volumes to train on: padded, with masks and eroded borders, and a card.

    deepem prepare cremi                                              see deepem prepare cremi --help
    deepem prepare snemi3d --files img=input.tif seg=labels.tif       local files
    deepem prepare lucchi --urls img=https://... mit=https://...      download them
    deepem prepare NAME --help                                        the flags

Files may be HDF5 (``a.hdf:volumes/raw``), TIFF stacks, folders of PNG sections, zarr, OME-NGFF, N5, numpy or
precomputed. Downloads are kept with their checksums under DATA_DIR/downloads, so an interrupted preparation only
downloads the missing files. A folder is written completely or not at all. Its card.json lists sources, voxel size,
axes, licence, counts, checksums and the tasks that the volumes can train. The same command again skips volumes that
exist.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem import tasks
from deepem.cli import words as readers
from deepem.cli.flags import Group, flag
from deepem.cli.parser import read_group
from deepem.data import card, convert
from deepem.data.card import Card
from deepem.data.challenges import CHALLENGES, Challenge
from deepem.data.table import Made
from deepem.data.truth_folder import write_folder
from deepem.io.download import check, digest, fetch
from deepem.tools import output
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

Named = dict[str, str]
KEYS = ("img", "msk", *dict.fromkeys(source for task in tasks.TASKS for source in task.sources))


def _named(word: str) -> tuple[str, str]:
    """Parse ``img=FILE``."""
    key, equals, value = readers.text(word).strip().partition("=")
    if not (equals and value) or key not in KEYS:
        raise argparse.ArgumentTypeError(f"got {readers.text(word)}, wants KEY=VALUE, a key of {', '.join(KEYS)}")
    return key, value


@dataclass(frozen=True)
class PrepareOptions(Group):
    """What to prepare, and from which files."""

    title = "files by key: img, labels such as seg and mit, and msk, where labels hold"
    files: Named | None = flag(None, "local files", read=_named, metavar="KEY=FILE", many="+")
    urls: Named | None = flag(None, "files to download", read=_named, metavar="KEY=URL", many="+")
    sha256: Named | None = flag(None, "expected checksums of the files", read=_named, metavar="KEY=HEX", many="+")
    id: str | None = flag(None, "the volume of the data set that the files are (default: the first)", metavar="ID")
    classes: Named | None = flag(
        None, "values in a file that are the label, such as mit=2 or mit=2,3", read=_named, metavar="KEY=N",
        many="+",
    )  # fmt: skip
    data_dir: Path = flag(Path("data"), "folder to write into", metavar="DIR")
    voxel_size: tuple[float, float, float] | None = flag(None, "z,y,x in nm (default: as stored in the files)")
    pad: Vec3 = flag((0, 0, 0), "mirrored voxels to add on each side; training ignores them")
    val: float = flag(0.2, "share of the sections to evaluate on", read=readers.fraction, metavar="SHARE")
    licence: str = flag("not stated here, see the source", "licence to write into the card")


def main(words: Sequence[str]) -> int:
    """Prepare a volume of a data set."""
    name = words[0] if words and not words[0].startswith("-") else ""
    if name == "cremi":
        from deepem.tools import prepare_cremi

        return prepare_cremi.main(words[1:])
    program = f"deepem prepare {name}".strip()
    with output.errors_of(program):
        if name not in CHALLENGES and words[:1] not in (["-h"], ["--help"]):
            raise InputError("NAME", name or "nothing", f"one of cremi, {', '.join(CHALLENGES)}")
        own = read_group(program, __doc__, PrepareOptions, words[1:] if name else words, f"{program} --files img=FILE")
        challenge = CHALLENGES[name]
        id = own.id or next(iter(challenge.labels))
        if id not in challenge.labels:
            raise InputError("--id", id, f"one of {', '.join(challenge.labels)}")
        _check(own, challenge, id)
        output.check_folder("--data_dir", own.data_dir)
        _prepare(own, name, id, _files(own, name))
    return 0


def _check(own: PrepareOptions, challenge: Challenge, id: str) -> None:
    """Refuse flags that are incomplete or contradict each other."""
    files, urls = own.files or {}, own.urls or {}
    lacking = [key for key in ("img", *challenge.labels[id].split()) if key not in {*files, *urls}]
    if lacking:
        wants = f"{' '.join(f'{key}=FILE' for key in lacking)}: which files these are is not known here"
        raise InputError("--files", "nothing" if not (files or urls) else f"no {', '.join(lacking)}", wants)
    if twice := sorted(files.keys() & urls.keys()):
        raise InputError("--files, --urls", f"{twice[0]} twice", "one file for each key")
    for flag_name, given in (("--sha256", own.sha256), ("--classes", own.classes)):
        if other := [key for key in given or {} if key not in {*files, *urls}]:
            raise InputError(flag_name, other[0], f"keys of the files: {', '.join([*files, *urls])}")
    if not own.val < 1:
        raise InputError("--val", own.val, "a share below 1")
    if min(own.pad) < 0:
        raise InputError("--pad", ",".join(map(str, own.pad)), "z,y,x of 0 or more")


def _files(own: PrepareOptions, name: str) -> dict[str, Path]:
    """Return the file of every key, local or downloaded, after a check of its checksum."""
    sums, found = own.sha256 or {}, {}
    for key, file in (own.files or {}).items():
        found[key] = Path(file)
        check(_on_disk(found[key]), sums.get(key))
    for key, url in (own.urls or {}).items():
        target = own.data_dir / "downloads" / name / f"{key}_{Path(url.partition('?')[0]).name}"
        found[key] = fetch(url, target, sums.get(key), otherwise="--files with a file")
    return found


def _on_disk(path: Path) -> Path:
    """Return the file part of ``a.hdf:volumes/raw``."""
    return path if path.exists() else Path(str(path).partition(":")[0])


def _prepare(own: PrepareOptions, name: str, id: str, files: Mapping[str, Path]) -> None:
    challenge = CHALLENGES[name]
    folder = own.data_dir / str(challenge.table(name)[id]["dir"])
    settings: dict[str, Any] = {
        "pad": own.pad, "val": own.val, "classes": own.classes or {}, "inverted": challenge.inverted,
        "arrays": {key: str(path).partition(":")[2] for key, path in files.items()},
    }  # fmt: skip
    inputs = {key: digest(_on_disk(path)) for key, path in files.items()}
    known = Card(name, id, own.voxel_size or (), challenge.source, own.licence, inputs, settings)
    if known.describes(folder) and not card.lacking(folder):
        output.say(f"{folder}: is there already: {card.in_words(folder)}")
        return
    arrays, nm = _read(own, challenge, files)
    about = Card(name, id, nm, challenge.source, own.licence, inputs, settings)
    with output.writing("--data_dir", folder):
        write_folder(folder, convert.finished(arrays, own.pad, 1 - own.val), card=about)
    output.say(f"{folder}: {card.in_words(folder)}")


def _read(
    own: PrepareOptions, challenge: Challenge, files: Mapping[str, Path]
) -> tuple[dict[str, NDArray[Any]], tuple[float, float, float]]:
    """Return the arrays by key, with labels decoded as the flags say, and the voxel size."""
    arrays: dict[str, NDArray[Any]] = {}
    sizes: dict[str, tuple[float, float, float]] = {}
    for key, path in files.items():
        array, size = convert.read(path)
        keep = tuple(int(n) for n in (own.classes or {}).get(key, "").split(",") if n)
        arrays[key] = Made(key, keep=keep, inverted=key in challenge.inverted).array(lambda _, a=array: a)  # type: ignore[misc]
        sizes |= {key: size} if size is not None else {}
    for key, size in sizes.items():
        if "img" in sizes and not np.allclose(size, sizes["img"], rtol=1e-3):
            raise InputError(files[key], f"voxels of {size} nm", f"those of the image, {sizes['img']}")
    nm = own.voxel_size or sizes.get("img") or challenge.voxel_size_nm
    if nm is None:
        raise InputError("--voxel_size", "nothing", "z,y,x nanometres: neither the files nor the data set say it")
    return arrays, nm
