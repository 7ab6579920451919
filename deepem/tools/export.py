"""Export a checkpoint for serving: weights as safetensors, the network as a program, and a model card.

Writes, where the packages and the network allow, with one line for what could not be written and why:

    model.safetensors   the weights (needs safetensors)
    model.pt2           torch.export: loads without deepem, fixed patch size, any batch size
    model.onnx          the same for ONNX runtimes (needs onnx and onnxscript)
    model.json, MODEL_CARD.md   all that rebuilds the network: model, flags, tasks, edges, sizes; data and provenance

deepem.load(FOLDER) builds the network again. What is exported is what evaluation used: the average of the weights
(--ema), or those trained, with statistics taken anew (--calibrate). --raw takes the trained weights with the statistics
of their last steps.
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
    chkpt_num: int = flag(0, "checkpoint; 0: the newest", read=read.natural, metavar="N")
    best: bool = flag(False, "the checkpoint with the lowest validation loss")
    raw: bool = flag(False, "the trained weights, not those that evaluation used")
    model: str | None = flag(None, "model module, named again where it is not one of deepem's", metavar="MODULE")


def main(words: Sequence[str]) -> int:
    """Read the command line and export."""
    with output.errors_of("deepem export"):
        example = "deepem export --exp_name cremi --out served"
        options = read_group("deepem export", __doc__, ExportOptions, words, example)
        from deepem.tools.serving import export, find

        found = find(options.exp_name, options.chkpt_num, options.best)
        export(found, options.out, options.raw, options.model)
    return 0
