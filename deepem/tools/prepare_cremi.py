"""Make the folder that `deepem.data.dataset.flyem.cremi_b` reads from CREMI's file of sample B.

    deepem prepare cremi                                         download it, then convert
    deepem prepare cremi --hdf sample_B_padded_20160501.hdf    convert a file at hand

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

from deepem.data.cremi import PAD, convert
from deepem.data.dataset.flyem import cremi_b
from deepem.data.truth_folder import write_folder
from deepem.tools import output
from deepem.utils.errors import InputError

URLS = {
    "padded": "https://cremi.org/static/data/sample_B_padded_20160501.hdf",
    "cropped": "https://cremi.org/static/data/sample_B_20160501.hdf",
}


def main(words: Sequence[str]) -> int:
    """Download if need be, convert, write."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("deepem prepare cremi", description=__doc__, formatter_class=as_written)
    parser.add_argument("--hdf", type=Path, help="CREMI's file, if it is at hand: nothing is downloaded")
    parser.add_argument("--url", default=URLS["padded"], help=f"where to download it (default: {URLS['padded']})")
    parser.add_argument("--sha256", help="refuse a file whose checksum is another")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where it goes (default: data)")
    parser.add_argument("--glia_ids", type=int, nargs="+", default=[], help="neuron ids that are glia")
    parser.add_argument("--pad", default=",".join(map(str, PAD)), help="unlabelled voxels z,y,x on each side")
    args = parser.parse_args(words)
    with output.errors_of(parser.prog):
        pad = vector("--pad", args.pad)
        hdf = args.hdf or download(args.url, args.data_dir / Path(args.url).name)
        if args.hdf or args.sha256:
            check(hdf, args.sha256)
        volumes = convert(hdf, pad, args.glia_ids)
        folder = args.data_dir / cremi_b.FOLDER
        write_folder(folder, volumes)
        output.say(f"{folder}: {', '.join(volumes)}, {'x'.join(map(str, volumes['img'].shape))}")
    return 0


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
                sys.stderr.write(f"\r{target.name}: {got / 1e6:.0f}{share}")
        sys.stderr.write("\n")
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
