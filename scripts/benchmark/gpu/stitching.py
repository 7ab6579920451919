"""Section 4: stitched inference against the bare network, from file to file, and what it takes in memory.

`share` is the time of bare forward passes on as many patches as the program needed, over the time of the program: the
patches' own share of the work. A trace tells which share of the copies between host and device was hidden, that is,
went on while the device computed. `peak_over_estimate` is the device's peak memory over what the program foretold.
"""

from __future__ import annotations

import gc
import io
import json
import os
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare import TASKS
from figures import NEEDS_GPU, arguments, attempt, device_of, figure, in_words, median_seconds
from timeline import Timeline

import deepem
from deepem.data import emio
from deepem.test import forward
from deepem.train import run

NAME, STEPS = "stitching", 1
SECONDS = 4.0
"""About how long each case takes on a GPU; the volume is as large as that allows."""
FLIPS = [str(k) for k in range(16)]
TARGET = "share 0.98"


class Stitching:
    """A network and the volumes that it predicts.

    Args:
        small: Tiny sizes.
        device: Where it runs.
    """

    def __init__(self, small: bool, device: torch.device) -> None:
        self.small, self.device, self.gpu = small, device, device.type == "cuda"
        self.patch = (4, 16, 16) if small else (20, 256, 256)
        self.stride = [n // 2 for n in self.patch]
        self.where = [] if self.gpu else ["--cpu"]
        self.how = ["--amp"] if self.gpu else []
        self.model = self.trained()
        torch.backends.cudnn.benchmark = False  # as in the program; training has set it
        self.bare_s, self.held = self.bare(), 0

    def trained(self) -> torch.nn.Module:
        """Train a little for a checkpoint, and load the network from it."""
        volume = ",".join(str(max(n + n // 2, 32)) for n in self.patch)
        words = f"--data synthetic --synth_size {volume} {TASKS} --fov {','.join(map(str, self.patch))} --num_workers 0"
        words += f" --max_iter {STEPS} --eval_iter 1 --exp_name {NAME}" + (" --width 2 3 4 5" if self.small else "")
        run.main([*words.split(), *self.where])
        model = deepem.load(Path("experiments", NAME, "models", f"model{STEPS}.chkpt"))
        return model.to(self.device, memory_format=torch.channels_last_3d)

    def bare(self) -> float:
        """Return the seconds of a bare forward pass on one patch."""
        patches = torch.rand(1, 1, *self.patch, device=self.device)

        @torch.no_grad()
        def call() -> None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.gpu):
                self.model(patches)

        for _ in range(3):
            call()
        return median_seconds(call, 3 if self.small else 40, self.device)

    def volume(self, name: str, share: float, across: int) -> tuple[int, int, int]:
        """Write a volume of noise to predict in about this share of SECONDS, and return its size.

        Args:
            name: Of the folder.
            share: Of the seconds.
            across: Patches along y and along x.
        """
        layers = 2 if self.small else max(8, min(60, round(share * SECONDS / self.bare_s / across**2)))
        counts = (layers, 2, 1) if self.small else (layers, across, across)
        size = tuple(p + s * (n - 1) for p, s, n in zip(self.patch, self.stride, counts, strict=True))
        path = Path("data", name, "img.h5")
        path.parent.mkdir(parents=True, exist_ok=True)
        emio.imsave(np.random.default_rng(0).integers(0, 256, size, np.uint8), path)
        return size

    def predicted(self, *words: str) -> dict[str, Any]:
        """Run the program and return its summary of the only volume, with the device's peak memory."""
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()
            self.held = torch.cuda.memory_allocated(self.device)
        told = io.StringIO()
        began = time.perf_counter()
        with redirect_stdout(told):
            forward.main(["--exp_name", NAME, *self.where, *self.how, "--json", *words])
        found = {**json.loads(told.getvalue())["volumes"][0], "wall_s": time.perf_counter() - began}
        for path in Path("experiments", NAME, "forward").glob("*"):
            path.unlink()
        return found

    def files(self, case: str, name: str, *words: str) -> None:
        """Predict a volume from file to files."""
        peak = {}
        found = self.predicted("--data_dir", "data", "--test_ids", name, *words)
        if self.gpu:  # the program resets this record when it measures the network
            used = torch.cuda.max_memory_allocated(self.device) - self.held
            peak = {"peak_mib": used >> 20, "peak_over_estimate": used / found["memory_estimate"]}
        self.tell(case, found, peak_note=None if self.gpu else f"peak memory {NEEDS_GPU}", **peak)

    def tell(self, case: str, found: dict[str, Any], peak_note: str | None = None, **more: Any) -> None:
        """Tell the figures of a summary."""
        note = {} if peak_note is None else {"note": peak_note}
        figure(
            case,
            share=found["patches"] * self.bare_s / found["seconds"], voxels_per_s=found["voxels_per_s"],
            patches=found["patches"], seconds=found["seconds"], wall_s=found["wall_s"],
            estimate_mib=found["memory_estimate"] >> 20, **more, target=TARGET, **note,
        )  # fmt: skip

    def nowhere(self, size: Sequence[int]) -> None:
        """Predict noise into nothing: what stitching costs without files."""
        self.tell("to no file", self.predicted("--dummy", "--dummy_inputsz", *map(str, size)))

    def in_memory(self, name: str) -> None:
        """Predict an array with `predict`."""
        image = emio.imread(Path("data", name, "img.h5"))
        began = time.perf_counter()
        found = forward.predict(self.model, image, patch_size=self.patch, amp=self.gpu)
        taken = time.perf_counter() - began
        counts = [(n - p) // s + 1 for n, p, s in zip(image.shape, self.patch, self.stride, strict=True)]
        figure(
            "predict, in memory",
            share=float(np.prod(counts)) * self.bare_s / taken, voxels_per_s=image.size / taken, seconds=taken,
            mean=float(found["affinity"].mean()), target=TARGET,
        )  # fmt: skip

    def hidden(self, name: str) -> None:
        """Tell from a trace which share of the copies went on while the device computed."""
        if not self.gpu:
            figure("copies hidden", note=NEEDS_GPU)
            return
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            self.predicted("--data_dir", "data", "--test_ids", name)
        profile.export_chrome_trace("trace.json")
        trace = Timeline(Path("trace.json"))
        copied = sum(end - begin for _, (begin, end) in trace.copies) / 1e3
        figure("copies hidden", share_hidden=trace.hidden(), copies_ms=copied, target="share_hidden near 1")


def main() -> None:
    """Measure all cases."""
    args = arguments(__doc__)
    os.chdir(args.out)
    device = device_of(args.small)
    stitching = Stitching(args.small, device)
    figure("bare network", patch_ms=stitching.bare_s * 1e3, note=f"patch {in_words(stitching.patch)}, batch of 1")
    size, _, _ = (
        stitching.volume("large", 1.0, 7),
        stitching.volume("flips", 1 / 16, 3),
        stitching.volume("part", 0.2, 4),
    )
    cases = {
        "file to file": lambda: stitching.files("file to file", "large"),
        "to bytes": lambda: stitching.files("file to file, as bytes", "large", "--out_dtype", "uint8"),
        "to no file": lambda: stitching.nowhere(size),
        "flips": lambda: stitching.files("file to file, 16-fold", "flips", "--test_aug", *FLIPS),
        "in memory": lambda: stitching.in_memory("large"),
        "hidden": lambda: stitching.hidden("part"),
    }
    went_well = all([attempt(case, measure) for case, measure in cases.items()])
    if stitching.gpu:
        torch.backends.cudnn.benchmark = True
        figure("bare network, cuDNN times its algorithms", patch_ms=stitching.bare() * 1e3)
    raise SystemExit(not went_well)


if __name__ == "__main__":
    main()
