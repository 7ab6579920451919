"""Make volumes to train on from CREMI's files, local or downloaded.

    deepem prepare cremi                                       sample B for --data flyem.cremi_b
    deepem prepare cremi --hdf sample_B_padded_20160501.hdf    the same, from a local file
    deepem prepare cremi --samples A B C                       samples at 4 nm, for --data cremi

Without --samples this makes sample B at 8 nm in plane: the image is averaged over 2x2 voxels, and ids take the most
frequent of the four. Around the labelled box lie 16 sections and 256 voxels in y and x of unlabelled tissue: real
tissue with CREMI's padded file, mirrored tissue with the unpadded one. The files are img, seg, seg_d3_b0 (ids with
eroded borders), msk_train (the first four fifths of the labelled sections), msk_val (the rest), syn (from the clefts,
if there are any), and glia (from volumes/labels/glia or the ids after --glia_ids). With --samples everything stays at
4 nm, and partners.h5 has a ball around each presynaptic (1) and postsynaptic site (2). A folder is written completely
or not at all. Its card.json lists the contents, and the same command again skips folders that exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from deepem.cli import words as readers
from deepem.cli.flags import Group, flag
from deepem.cli.parser import read_group
from deepem.data import card, cremi
from deepem.data.card import Card
from deepem.data.dataset.flyem import cremi_b
from deepem.data.truth_folder import write_folder
from deepem.io.download import check, digest, fetch
from deepem.tools import output
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

PROGRAM = "deepem prepare cremi"
SITE = "https://cremi.org/static/data"
URLS = {
    "padded": f"{SITE}/sample_B_padded_20160501.hdf",
    **{sample: f"{SITE}/sample_{sample}_20160501.hdf" for sample in "ABC"},
}
SAMPLES = ("A", "B", "C", "A+", "B+", "C+")


@dataclass(frozen=True)
class CremiOptions(Group):
    """What to prepare, and from which files."""

    title = "CREMI"
    samples: list[str] | None = flag(
        None, "samples to convert at 4 nm, for --data cremi", read=readers.one_of(*SAMPLES), metavar="SAMPLE", many="+"
    )
    hdf: list[Path] | None = flag(
        None, "local CREMI file, or one for each of --samples, to use instead of a download", many="+"
    )
    url: str | None = flag(None, f"download it from here (default: {URLS['padded']})", metavar="URL")
    sha256: str | None = flag(None, "refuse a file with another checksum", metavar="HEX")
    data_dir: Path = flag(Path("data"), "folder to write into", metavar="DIR")
    glia_ids: list[int] = flag([], "ids of glia in the neuron labels", many="+")
    pad: Vec3 | None = flag(None, "unlabelled voxels on each side (default: 16,256,256, with --samples none)")
    licence: str = flag("not stated here, see https://cremi.org", "licence to write into the card")


def main(words: Sequence[str]) -> int:
    """Download if necessary, convert and write."""
    with output.errors_of(PROGRAM):
        own = read_group(PROGRAM, __doc__, CremiOptions, words, PROGRAM)
        samples: list[str | None] = [*(own.samples or (None,))]
        if own.hdf and len(own.hdf) != len(samples):
            raise InputError("--hdf", f"{len(own.hdf)} files", f"{len(samples)}, one for each sample")
        if len(samples) > 1 and (own.url or own.sha256):
            raise InputError("--url, --sha256", f"{len(samples)} samples", "one of --samples at a time")
        pad = own.pad or ((0, 0, 0) if own.samples else cremi.PAD)
        if min(pad) < 0:
            raise InputError("--pad", ",".join(map(str, pad)), "z,y,x of 0 or more")
        output.check_folder("--data_dir", own.data_dir)
        files = [_file(own, sample, index) for index, sample in enumerate(samples)]
        for sample, hdf in zip(samples, files, strict=True):
            _prepare(own, sample, hdf, pad)
    return 0


def _file(own: CremiOptions, sample: str | None, index: int) -> Path:
    """Return the file of a sample, local or downloaded."""
    if own.hdf:
        check(own.hdf[index], own.sha256)
        return own.hdf[index]
    url = own.url or URLS.get(sample or "padded")
    if url is None:
        raise InputError("--samples", sample, "--hdf with a file at hand, or --url: where it lies is not known here")
    return fetch(url, own.data_dir / Path(url).name, own.sha256, otherwise="--hdf with a file", accept=h5py.is_hdf5)


def _prepare(own: CremiOptions, sample: str | None, hdf: Path, pad: Vec3) -> None:
    folder = own.data_dir / (cremi_b.FOLDER if sample is None else f"cremi/{sample}")
    settings: dict[str, Any] = {"pad": pad, "glia_ids": own.glia_ids}
    nm = (40, 8, 8) if sample is None else (40, 4, 4)
    about = Card("cremi", sample or "cremi_b", nm, "https://cremi.org", own.licence, {"hdf": digest(hdf)}, settings)
    if about.describes(folder) and not card.lacking(folder):
        output.say(f"{folder}: is there already: {card.in_words(folder)}")
        return
    volumes = cremi.convert(hdf, pad, own.glia_ids) if sample is None else cremi.convert_whole(hdf, pad)
    with output.writing("--data_dir", folder):
        write_folder(folder, volumes, card=about)
    output.say(f"{folder}: {card.in_words(folder)}")
