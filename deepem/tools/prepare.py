"""Make volumes to train on from a public data set: converted, padded, with masks and eroded borders, and a card.

    deepem prepare cremi                                              see deepem prepare cremi --help
    deepem prepare snemi3d --files img=input.tif seg=labels.tif       files at hand
    deepem prepare lucchi --urls img=https://... mit=https://...      files of the web
    deepem prepare NAME --help                                        the flags

Files may be HDF5 (``a.hdf:volumes/raw``), TIFF stacks, folders of PNG sections, zarr, OME-NGFF, N5, numpy or
precomputed. Downloads are kept with their checksums under DATA_DIR/downloads, so that an interrupted preparation goes
on with the files that it lacks. A folder is written whole or not at all. card.json in it says what was written, from
what, with voxel size, axes, licence, counts, checksums and the tasks that it trains; the same command again makes
nothing that is there.
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
    """Read ``img=FILE``."""
    key, equals, value = readers.text(word).strip().partition("=")
    if not (equals and value) or key not in KEYS:
        raise argparse.ArgumentTypeError(f"got {readers.text(word)}, wants KEY=VALUE, a key of {', '.join(KEYS)}")
    return key, value


@dataclass(frozen=True)
class PrepareOptions(Group):
    """What to prepare, from what."""

    title = "files by key: img, labels such as seg and mit, and msk, where labels hold"
    files: Named | None = flag(None, "files at hand", read=_named, metavar="KEY=FILE", many="+")
    urls: Named | None = flag(None, "files to download", read=_named, metavar="KEY=URL", many="+")
    sha256: Named | None = flag(None, "what their checksums must be", read=_named, metavar="KEY=HEX", many="+")
    id: str | None = flag(None, "which of its volumes they are (default: the first)", metavar="ID")
    classes: Named | None = flag(
        None, "the numbers of a file that are its label, such as mit=2 or mit=2,3", read=_named, metavar="KEY=N",
        many="+",
    )  # fmt: skip
    data_dir: Path = flag(Path("data"), "where it goes", metavar="DIR")
    voxel_size: tuple[float, float, float] | None = flag(None, "z,y,x nanometres (default: as the files say)")
    pad: Vec3 = flag((0, 0, 0), "mirrored voxels on each side, where nothing is trained on")
    val: float = flag(0.2, "share of the sections to evaluate on", read=readers.fraction, metavar="SHARE")
    licence: str = flag("not stated here, see the source", "what the card says of the licence")


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
    """Refuse flags that do not say all that is needed, or say something twice."""
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
    """The file of every key, at hand or downloaded, its checksum looked at."""
    sums, found = own.sha256 or {}, {}
    for key, file in (own.files or {}).items():
        found[key] = Path(file)
        check(_on_disk(found[key]), sums.get(key))
    for key, url in (own.urls or {}).items():
        target = own.data_dir / "downloads" / name / f"{key}_{Path(url.partition('?')[0]).name}"
        found[key] = fetch(url, target, sums.get(key), otherwise="--files with a file")
    return found


def _on_disk(path: Path) -> Path:
    """The file of ``a.hdf:volumes/raw``."""
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
    """The arrays by key, labels as they are meant, and the voxel size."""
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
