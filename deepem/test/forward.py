"""Predict volumes of any size: the command line, and `predict` for an image in memory.

Run as ``python deepem/test/forward.py``, ``python -m deepem.test.forward`` or ``deepem-forward``; ``--help`` lists the
flags.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a file: deepem/test/ is first on the path, where the checkout belongs
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from deepem.cli.forward_parser import parse
from deepem.cli.parser import one_line_errors
from deepem.tasks import TASKS

if TYPE_CHECKING:  # torch and all that needs it are imported once the command line is known to be good
    import numpy as np
    import torch
    from numpy.typing import ArrayLike, NDArray

    from deepem.tasks import Task
    from deepem.utils.geometry import Vec3


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and predict."""
    with one_line_errors("forward.py", words) as flags:
        options, found = parse(words)
        flags.update(options.flat())
        from deepem.test.batch import predict_batch
        from deepem.test.job import Job
        from deepem.test.volumes import predict_all
        from deepem.utils.allocator import keep_memory

        keep_memory(one_arena=True)
        with redirect_stdout(sys.stderr):  # cloud-volume prints there; the summary is to be alone on stdout
            if options.batch.spec:
                summaries = predict_batch(options, sys.argv[1:] if words is None else list(words))
            else:
                summaries = predict_all(Job(options, found))
        if options.speed.json:
            sys.stdout.write(json.dumps({"checkpoint": found.number, "volumes": summaries}) + "\n")


def predict(
    model: Any,
    image: ArrayLike,
    *,
    patch_size: Vec3,
    output_size: Vec3 | None = None,
    overlap: Sequence[float] = (0.5, 0.5, 0.5),
    stride: Sequence[float] | None = None,
    blend: str = "bump",
    bump: str = "zung",
    edges: Sequence[Vec3] | Mapping[str, Sequence[Vec3]] | None = None,
    mask_edges: Sequence[Vec3] | Mapping[str, Sequence[Vec3]] | bool | None = None,
    temperature: float | None = None,
    test_aug: Sequence[int] | None = None,
    variance: bool = False,
    device: torch.device | str | None = None,
    batch_size: int = 1,
    amp: bool = False,
    progress: bool = False,
    tasks: Sequence[Task] = TASKS,
) -> dict[str, NDArray[np.float32]]:
    """Slide a model over an image in overlapping patches, blend them, and return the probabilities.

    Args:
        model: Maps (N, C, Z, Y, X) float32 in [0, 1] to ``{name: logits (N, C, Z, Y, X)}``, of the size of the output
            patch or of the whole patch. A module runs in eval mode, and is moved to `device` if one is given.
        image: (Z, Y, X) or (C, Z, Y, X); uint8, which is divided by 255, or floats in [0, 1].
        patch_size: Input patch, (z, y, x) voxels.
        output_size: Output patch in the middle of it, (patch - output) // 2 voxels from its front; by default the same.
        overlap: Per axis, between 0 and 1 a fraction, floor(fraction * output), otherwise voxels; 0 is allowed.
        stride: In place of the overlap: per axis a fraction of the output, rounded up, or voxels.
        blend: ``bump`` (``precomputed`` is the same), ``mean``, or ``none``: the mean too, or, without an overlap, the
            last patch where the flush one laps over.
        bump: ``zung``, ``wu`` or ``wu_no_crust``.
        edges: The edges of an affinity output's channels, for its flips: for each output by name, or one list for the
            outputs with as many channels. ``affinity`` has the nearest three without being told.
        mask_edges: Give no weight to the planes of a patch that an edge has no partner for: edges as above, or true
            for the outputs' own edges.
        temperature: Logits are divided by max(temperature, 1).
        test_aug: Average over these of the 16 flips and transposes: bits z, y, x, transpose, z first.
        variance: Add ``<name>_var``, the population variance over the augmentations.
        device: Where to run; by default where the model is.
        batch_size: Patches per call of the model.
        amp: Mixed precision.
        progress: Show a progress bar and the voxels per second.
        tasks: The table that says which outputs have a softmax and which edges; others have a sigmoid and none.

    Returns:
        ``{name: (C, Z, Y, X) float32}`` covering the image exactly, or, with output_size < patch_size, without
        (patch - output) // 2 voxels in front and the rest behind. Voxels that a mask or a crust leaves without weight
        have the unmasked weights.

    Raises:
        InputError: an image smaller than a patch or with values that are no numbers, sizes that do not fit.
    """
    from deepem.scan import inference

    return inference.predict(
        model, image, patch_size=patch_size, output_size=output_size, overlap=overlap, stride=stride, blend=blend,
        bump=bump, edges=edges, mask_edges=mask_edges, temperature=temperature, test_aug=test_aug, variance=variance,
        device=device, batch_size=batch_size, amp=amp, progress=progress, tasks=tasks,
    )  # fmt: skip


if __name__ == "__main__":
    main()
