"""Handles flags of the public DeepEM that belong to plug-ins here or have no meaning any more."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deepem.cli import signatures
from deepem.cli.migration import AUGMENTATIONS, FLAGS
from deepem.cli.words import text
from deepem.utils.errors import InputError, warn

PUBLIC = {
    **dict.fromkeys(("recompute", "flip", "grayscale", "warping", "interp", "lost", "random"), 0),
    **dict.fromkeys(("glia_mask", "no_autotune"), 0),
    **dict.fromkeys(("misalign", "missing", "blur", "box", "mip", "depth", "group", "act"), 1),
    "width": sys.maxsize,
}
"""Flag -> the largest number of words after it. Files of arguments for the public DeepEM pass all flags to every
program, so a flag that no chosen module takes causes a warning instead of an error.
"""


def refuse_unknown(rest: Sequence[str]) -> None:
    """Warn of public flags that no chosen module takes; refuse all other unknown words."""
    follow = 0
    for shielded in rest:
        word = text(shielded)
        if not shielded.startswith("-"):
            if not follow:
                raise InputError(word.strip(), "a word that belongs to no flag", "--FLAG VALUE")
            follow -= 1
            continue
        name = word.split("=")[0].lstrip("-").replace("-", "_")
        name = name.removeprefix("no_") if name != "no_autotune" else name
        if name not in PUBLIC and name in FLAGS:
            raise InputError(word, "a flag of the public DeepEM", FLAGS[name])
        if name not in PUBLIC:
            where = signatures.takers(name)
            wants = f"a module that does: {' or '.join(where[:4])}" if where else "a flag of --help"
            raise InputError(word, "a flag that no chosen module takes" if where else "an unknown flag", wants)
        if name in AUGMENTATIONS:
            having = " or ".join([where for where in signatures.takers(name) if where.startswith("--augment")][:3])
            warn(f"{word}: no chosen module takes it; there is no such augmentation in this run ({having} has it)")
        else:
            why = f" ({FLAGS[name]})" if FLAGS.get(name, "").startswith("accepted") else ""
            warn(f"{word}: no chosen module takes it; ignored{why}")
        follow = 0 if "=" in word else PUBLIC[name]
