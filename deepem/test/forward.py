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

if __package__ in (None, ""):  # run as a file: put the checkout first on the path, in place of deepem/test/
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from deepem.cli.forward_parser import parse
from deepem.cli.one_line import one_line_errors
from deepem.tasks import TASKS
from deepem.utils.stopping import stopping_tidily

if TYPE_CHECKING:  # torch and the modules that need it are imported after the command line has been checked
    import numpy as np
    import torch
    from numpy.typing import ArrayLike, NDArray

    from deepem.tasks import Task
    from deepem.utils.geometry import Vec3


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and predict.

    Raises:
        SystemExit: bad input, or a signal to stop. Half-written files are removed and complete ones stay.
    """
    with one_line_errors("forward.py", words) as flags, stopping_tidily():
        options, found = parse(words)
        flags.update(options.flat())
        from deepem.test.batch import predict_batch
        from deepem.test.job import Job
        from deepem.test.volumes import predict_all
        from deepem.utils.allocator import keep_memory

        keep_memory(one_arena=True)
        with redirect_stdout(sys.stderr):  # cloud-volume prints to stdout, which must hold nothing but the summary
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
    """Slide a model over an image in overlapping patches, blend their predictions, and return probabilities.

    Args:
        model: Maps (N, C, Z, Y, X) float32 in [0, 1] to ``{name: logits (N, C, Z, Y, X)}``, of the size of the output
            patch or of the input patch. A module runs in eval mode and is moved to `device` if one is given.
        image: (Z, Y, X) or (C, Z, Y, X); floats in [0, 1], or uint8, which is divided by 255.
        patch_size: Input patch, (z, y, x) voxels.
        output_size: Output patch, (patch - output) // 2 voxels from the front of the input patch; by default its size.
        overlap: Per axis, voxels, or a fraction between 0 and 1 that gives floor(fraction * output); 0 is allowed.
        stride: Instead of the overlap: per axis, voxels, or a fraction of the output patch, rounded up.
        blend: ``bump`` (or its synonym ``precomputed``), ``mean``, or ``none``. ``none`` also takes the mean if there
            is an overlap. Without one, the last patch along an axis, moved back to end with the volume, overwrites.
        bump: ``zung``, ``wu`` or ``wu_no_crust``.
        edges: The edge of each channel, which flips of affinities need: a list per output by name, or one list for all
            outputs with that many channels. ``affinity`` defaults to the nearest three edges.
        mask_edges: Edges as above, or true for the outputs' own: planes where an edge leaves the patch get no weight.
        temperature: Logits are divided by max(temperature, 1).
        test_aug: Numbers, 0 to 15, of the flips and transposes to average over: bits z, y, x, transpose, z first.
        variance: Add ``<name>_var``, the population variance over the augmentations.
        device: Device to run on; by default that of the model.
        batch_size: Patches per call of the model.
        amp: Mixed precision.
        progress: Show a progress bar and the voxels per second.
        tasks: The table of outputs; those that it lacks get a sigmoid and no edges, and lists of objects are left out.

    Returns:
        ``{name: (C, Z, Y, X) float32}`` that covers the image; with output_size < patch_size, less (patch - output) //
        2 voxels in front and the rest behind. Voxels that a mask or crust leaves without weight use unmasked weights.

    Raises:
        InputError: the image is too small or has values outside [0, 1], or an argument or the model's output is wrong.
    """
    from deepem.scan import inference

    return inference.predict(
        model, image, patch_size=patch_size, output_size=output_size, overlap=overlap, stride=stride, blend=blend,
        bump=bump, edges=edges, mask_edges=mask_edges, temperature=temperature, test_aug=test_aug, variance=variance,
        device=device, batch_size=batch_size, amp=amp, progress=progress, tasks=tasks,
    )  # fmt: skip


if __name__ == "__main__":
    main()
