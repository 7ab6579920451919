"""Flags of the public DeepEM that belong to plug-ins here, or to nothing any more."""

import sys

PUBLIC = {
    **dict.fromkeys(("recompute", "flip", "grayscale", "warping", "interp", "lost", "random"), 0),
    **dict.fromkeys(("glia_mask", "no_autotune"), 0),
    **dict.fromkeys(("misalign", "missing", "blur", "box", "mip", "depth", "group", "act"), 1),
    "width": sys.maxsize,
}
"""Flag -> the most words that can follow it. Public files of arguments pass all of them to every program, so a flag
that no chosen module takes is a warning and no error."""
