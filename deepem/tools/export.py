"""Export a checkpoint for serving: weights as safetensors, the network as a program, and a model card.

Writes these files. If a package is missing or the network cannot be exported, one line says why:

    model.safetensors   the weights (needs safetensors)
    model.pt2           torch.export: loads without deepem, fixed patch size, any batch size
    model.onnx          the same for ONNX runtimes (needs onnx and onnxscript)
    model.json, MODEL_CARD.md   how to rebuild the network: model, flags, tasks, edges, sizes; data and provenance

deepem.load(FOLDER) rebuilds the network. The export has the weights that evaluation used: their moving average (--ema),
or the trained weights with recomputed batch-norm statistics (--calibrate). --raw exports the trained weights with the
statistics of the last training steps.

--bundle writes in their place what a published address serves, for `deepem fetch`: model.safetensors, model.json,
MODEL_CARD.md, options.yaml, an example input with the network's output, bundle.json with all checksums, and
bioimageio.zip, a package for bioimage.io.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepem.cli import words as read
from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import read_group
from deepem.tools import output
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class ExportOptions(Group):
    """The flags of `deepem export`."""

    title = "export"
    exp_name: str = flag(REQUIRED, "the trained run, a folder under experiments/", metavar="NAME")
    out: Path = flag(REQUIRED, "folder to write into", metavar="DIR")
    chkpt_num: int = flag(0, "number of the checkpoint; 0 takes the newest", read=read.natural, metavar="N")
    best: bool = flag(False, "take the checkpoint with the lowest validation loss")
    raw: bool = flag(False, "take the trained weights instead of those that evaluation used")
    model: str | None = flag(None, "model module; needed if it is not one of deepem's", metavar="MODULE")
    bundle: bool = flag(False, "write a folder to publish, for deepem fetch")
    name: str | None = flag(None, "with --bundle: the name to publish it by (default: the folder's)", metavar="NAME")
    licence: str = flag("", "with --bundle: an SPDX identifier, such as CC-BY-4.0", metavar="SPDX")
    example: str | None = flag(
        None, "with --bundle: an image to cut the example from (default: synthetic tissue)", metavar="VOLUME"
    )


def main(words: Sequence[str]) -> int:
    """Read the command line and export."""
    with output.errors_of("deepem export"):
        example = "deepem export --exp_name cremi --out served"
        options = read_group("deepem export", __doc__, ExportOptions, words, example)
        for name in ("name", "licence", "example"):
            if getattr(options, name) and not options.bundle:
                raise InputError(f"--{name}", getattr(options, name), "--bundle with it")
        from deepem.tools.serving import export, find, prepare

        output.check_folder("--out", options.out)
        found = find(options.exp_name, options.chkpt_num, options.best)
        if not options.bundle:
            export(found, options.out, options.raw, options.model)
            return 0
        from deepem.tools import bundle

        prepared = prepare(found, options.raw, options.model)
        name = options.name or options.out.absolute().name
        row = bundle.write(prepared, options.out, name, options.licence, options.example)
        output.say(f'row for a table of published checkpoints: "{name}": {json.dumps(row)}')
    return 0
