"""Make the folder that `deepem.data.dataset.flyem.cremi_b` reads from CREMI's file of sample B.

    python scripts/prepare/cremi.py                                       download it, then convert
    python scripts/prepare/cremi.py --hdf sample_B_padded_20160501.hdf    convert a file at hand

CREMI's volumes are 4 nm in plane; the folder is at 8 nm (mip 1): the image averaged over 2x2 voxels, ids by the most
frequent of the four. Around the labelled box lie 16 sections and 256 voxels in y and x of tissue, unlabelled: real
tissue from CREMI's padded file, mirrored from the other one. Written are img, seg, seg_d3_b0 (ids with eroded borders),
msk_train and msk_val (the first four fifths of the labelled sections, and the rest), syn from the clefts if there are
any, and glia from volumes/labels/glia or the ids after --glia_ids. All of it or nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parent))

from _layout import eroded, masks, write_folder

from deepem.data.dataset.flyem import cremi_b
from deepem.utils.argv import one_line_errors
from deepem.utils.errors import InputError

URLS = {
    "padded": "https://cremi.org/static/data/sample_B_padded_20160501.hdf",
    "cropped": "https://cremi.org/static/data/sample_B_20160501.hdf",
}
PAD = (16, 256, 256)
"""Unlabelled voxels (z, y, x) on each side, at 8 nm in plane."""

NOTHING = np.uint64(2**64 - 1)
"""What CREMI writes where there is no cleft, or no neuron."""


def main(words: Sequence[str] | None = None) -> None:
    """Download if need be, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hdf", type=Path, help="CREMI's file, if it is at hand: nothing is downloaded")
    parser.add_argument("--url", default=URLS["padded"], help=f"where to download it (default: {URLS['padded']})")
    parser.add_argument("--sha256", help="refuse a file whose checksum is another")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where it goes (default: data)")
    parser.add_argument("--glia_ids", type=int, nargs="+", default=[], help="neuron ids that are glia")
    parser.add_argument("--pad", default=",".join(map(str, PAD)), help="unlabelled voxels z,y,x on each side")
    args = parser.parse_args(words)
    with one_line_errors("cremi.py"):
        pad = vector("--pad", args.pad)
        hdf = args.hdf or download(args.url, args.data_dir / Path(args.url).name)
        if args.hdf or args.sha256:
            check(hdf, args.sha256)
        volumes = convert(hdf, pad, args.glia_ids)
        folder = args.data_dir / cremi_b.FOLDER
        write_folder(folder, volumes)
        print(f"{folder}: {', '.join(volumes)}, {'x'.join(map(str, volumes['img'].shape))}")


def vector(flag: str, text: str) -> tuple[int, int, int]:
    """Three whole numbers of 0 or more, z,y,x."""
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(flag, text, "z,y,x voxels") from None
    if min(z, y, x) < 0:
        raise InputError(flag, text, "z,y,x of 0 or more")
    return z, y, x


def download(url: str, target: Path) -> Path:
    """The file of a URL, downloaded with progress unless it is there; it appears under its name once it is whole.

    The checksum of what came is written beside it, ``<name>.sha256``, and holds for every later use of the file.

    Raises:
        InputError: the server cannot be reached, or what it sent is shorter than it said.
    """
    record = target.with_name(f"{target.name}.sha256")
    if target.exists():
        check(target, record.read_text().split()[0] if record.exists() else None)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    digest, got = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url) as source, part.open("wb") as out:
            size = int(source.headers.get("Content-Length") or 0)
            while block := source.read(1 << 20):
                out.write(block)
                digest.update(block)
                got += len(block)
                share = f" of {size / 1e6:.0f} MB, {100 * got / size:.0f} %" if size else " MB"
                print(f"\r{target.name}: {got / 1e6:.0f}{share}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if size and got != size:
            raise InputError(url, f"{got} bytes", f"the {size} that the server announced; try again")
        record.write_text(f"{digest.hexdigest()}  {target.name}\n")
        part.replace(target)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(url, f"no file ({reason})", "a download, or --hdf with a file at hand") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def check(file: Path, sha256: str | None) -> None:
    """Refuse a file that is not there or whose checksum is another."""
    if not file.is_file():
        raise InputError(file, "no file", "CREMI's sample B")
    if sha256 is None:
        return
    with file.open("rb") as handle:
        digest = hashlib.sha256()
        while block := handle.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256.lower():
        raise InputError(file, f"checksum {digest.hexdigest()}", f"{sha256}; remove it to download it again")


def convert(hdf: Path, pad: tuple[int, int, int] = PAD, glia_ids: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """The volumes of the folder, (Z, Y, X), from a CREMI file.

    Raises:
        InputError: the file cannot be read, or is none of CREMI's with labels.
    """
    try:
        with h5py.File(hdf, "r") as top:
            raw, ids = dataset(top, hdf, "volumes/raw"), dataset(top, hdf, "volumes/labels/neuron_ids")
            out = {"img": image(raw, labelled(hdf, raw, ids), pad), "seg": labels(ids, pad)}
            for key, name in (("syn", "clefts"), ("glia", "glia")):
                if f"volumes/labels/{name}" in top:
                    found = labels(dataset(top, hdf, f"volumes/labels/{name}"), pad)
                    out[key] = (found > 0).astype(np.uint8)
    except (OSError, RuntimeError) as error:
        raise InputError(hdf, f"a file that cannot be read ({' '.join(str(error).split())})", "CREMI's file") from error
    if glia_ids:
        out["glia"] = np.isin(out["seg"], glia_ids).astype(np.uint8)
    out["seg"] = out["seg"].astype(np.uint32) if out["seg"].max(initial=0) < 2**32 else out["seg"]
    out["seg_d3_b0"] = eroded(out["seg"])
    shape = out["img"].shape
    z, y, x = (slice(p, n - p) for p, n in zip(pad, shape, strict=True))
    return {**out, **masks(shape, (z, y, x))}


def dataset(top: Any, hdf: Path, name: str) -> Any:
    """A 3-D dataset of a CREMI file."""
    if name not in top or top[name].ndim != 3:
        raise InputError(hdf, f"no volume {name}", "a CREMI sample with labels, such as sample_B_padded_20160501.hdf")
    return top[name]


def labelled(hdf: Path, raw: Any, ids: Any) -> list[tuple[int, int]]:
    """The labelled box in voxels of the image, (begin, end) along z, y, x, with even sides in y and x.

    CREMI says where it begins in nanometres, as the attribute `offset`.
    """
    nm = np.asarray(raw.attrs.get("resolution", (40, 4, 4)), float)
    begin = np.rint(np.asarray(ids.attrs.get("offset", (0, 0, 0)), float) / nm).astype(int).tolist()
    box = [(b, b + n) for b, n in zip(begin, ids.shape, strict=True)]
    if any(low < 0 or high > whole for (low, high), whole in zip(box, raw.shape, strict=True)):
        raise InputError(hdf, f"labels {ids.shape} from {begin} on", f"a box inside the image, {raw.shape}")
    return [box[0], *((low, low + (high - low) // 2 * 2) for low, high in box[1:])]


def image(raw: Any, box: Sequence[tuple[int, int]], pad: tuple[int, int, int]) -> np.ndarray:
    """The image of a box and `pad` voxels of 8 nm around it, averaged over 2x2; mirrored where the file ends."""
    index = []
    for (low, high), reach, whole in zip(box, (pad[0], 2 * pad[1], 2 * pad[2]), raw.shape, strict=True):
        # Which voxels of the file: beyond its ends the order runs backwards.
        wanted = np.arange(low - reach, high + reach) % (2 * whole)
        index.append(np.minimum(wanted, 2 * whole - 1 - wanted))
    sections = []
    for z in index[0]:
        full = raw[int(z)][np.ix_(index[1], index[2])].astype(np.uint16)
        total = full[0::2, 0::2] + full[0::2, 1::2] + full[1::2, 0::2] + full[1::2, 1::2]
        sections.append(((total + 2) // 4).astype(np.uint8))
    return np.stack(sections)


def labels(ids: Any, pad: tuple[int, int, int]) -> np.ndarray:
    """Labels at 8 nm in plane with zeros around: of each 2x2 voxels the most frequent id, of equals the first."""
    depth, height, width = (int(n) // f for n, f in zip(ids.shape, (1, 2, 2), strict=True))
    half = np.zeros((depth, height, width), np.uint64)
    for z in range(depth):
        full = ids[z][: 2 * height, : 2 * width].astype(np.uint64)
        full[full == NOTHING] = 0
        a, b, c, d = (full[y::2, x::2] for y in (0, 1) for x in (0, 1))
        most = np.where((a == b) | (a == c) | (a == d), a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))
        half[z] = most
    return np.pad(half, [(p, p) for p in pad])


if __name__ == "__main__":
    main()
