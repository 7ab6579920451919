"""Export a checkpoint for serving: weights as safetensors, the network as a program, and a model card.

Writes these files. If a package is missing or the network cannot be exported, one line says why:

    model.safetensors   the weights (needs safetensors)
    model.pt2           torch.export: loads without deepem, fixed patch size, any batch size
    model.onnx          the same for ONNX runtimes (needs onnx and onnxscript)
    model.json, MODEL_CARD.md   how to rebuild the network: model, flags, tasks, edges, sizes; data and provenance

deepem.load(FOLDER) rebuilds the network. The export has the weights that evaluation used: their moving average (--ema),
or the trained weights with recomputed batch-norm statistics (--calibrate). --raw exports the trained weights with the
statistics of the last training steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepem.cli import words as read
from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import read_group
from deepem.tools import output


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


def main(words: Sequence[str]) -> int:
    """Read the command line and export."""
    with output.errors_of("deepem export"):
        example = "deepem export --exp_name cremi --out served"
        options = read_group("deepem export", __doc__, ExportOptions, words, example)
        from deepem.tools.serving import export, find

        found = find(options.exp_name, options.chkpt_num, options.best)
        export(found, options.out, options.raw, options.model)
    return 0
