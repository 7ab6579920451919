"""Draw what the network will see: augmented samples with their labels, in one PNG.

Takes all flags of deepem train and those below, and draws samples of a run with the same flags and seed::

    deepem preview --data deepem.data.dataset.synthetic --augment grayscale_warping --grayscale --warping
        --aff 1 --mit 1 --out preview.png

Each sample takes two rows of sections. The upper row shows the image. The lower row adds a colour for each instance
(for affinities) and the outlines of all other labels; voxels that no loss counts are tinted red. The recipe is printed
as a tree.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from deepem.cli.one_line import OneLineParser
from deepem.cli.train_parser import parse
from deepem.tools import output
from deepem.utils.errors import InputError


def main(words: Sequence[str]) -> int:
    """Draw the sheet."""
    parser = OneLineParser(
        "deepem preview", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="file to write")
    parser.add_argument("--samples", type=int, default=6, help="number of samples")
    parser.add_argument("--sections", type=int, default=8, help="number of sections per sample, spread over its depth")
    parser.add_argument("--phase", choices=("train", "val"), default="train", help="training or validation samples")
    with output.errors_of(parser.prog) as flags:
        args, words = parser.parse_known_args(words)
        import cv2

        for name in ("samples", "sections"):
            if getattr(args, name) < 1:
                raise InputError(f"--{name}", getattr(args, name), "1 or more")
        if args.out.is_dir() or not cv2.haveImageWriter(str(args.out)):
            raise InputError("--out", args.out, "a picture to write, such as preview.png")
        output.check_folder("--out", args.out.parent)
        options = parse(words)
        flags.update(options.flat())
        from deepem.tools import sheet

        output.say(sheet.describe(options, args.phase))
        drawn = sheet.sheet(options, args.phase, args.samples, args.sections)
        with output.writing("--out", args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(args.out), drawn):
            raise InputError("--out", args.out, "a file that can be written, .png")
    output.say(args.out)
    return 0
