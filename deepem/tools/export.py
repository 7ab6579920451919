"""Export a checkpoint for serving: weights as safetensors, the network as a program, and a model card.

    deepem export --exp_name cremi [--chkpt_num N | --best] --out served/

Writes, where the packages and the network allow, with one line for what could not be written and why:

    model.safetensors   the weights (needs safetensors)
    model.pt2           torch.export: loads without deepem, fixed patch size, any batch size
    model.onnx          the same for ONNX runtimes (needs onnx and onnxscript)
    model.json, MODEL_CARD.md   tasks, edges, sizes, normalisation, data, iteration

What is exported is what evaluation used: the average of the weights (--ema), or those trained, with statistics taken
anew (--calibrate). --raw takes the trained weights with the statistics of their last steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from deepem.tools import output


def main(words: Sequence[str]) -> int:
    """Read the command line and export."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("deepem export", description=__doc__, formatter_class=as_written)
    parser.add_argument("--exp_name", required=True)
    parser.add_argument("--chkpt_num", type=int, default=0, help="0: the newest")
    parser.add_argument("--best", action="store_true", help="the one with the lowest validation loss")
    parser.add_argument("--raw", action="store_true", help="the trained weights, not those that evaluation used")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(words)
    with output.errors_of(parser.prog):
        from deepem.tools.serving import export, find

        export(find(args.exp_name, args.chkpt_num, args.best), args.out, args.raw)
    return 0
