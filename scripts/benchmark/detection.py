#!/usr/bin/env python3
"""What the parts of the detector take: suppression, RoIAlign, a training step, a tile.

    detection.py nms --boxes 10000        suppression of boxes in a cube of 200 voxels of which most are kept
    detection.py roi_align --rois 256     features of boxes at 7^3 and 14^3, forward and backward
    detection.py step --patch 64 64 64    a training step of a Mask R-CNN, and tiles/s of its prediction
    detection.py all

Seconds are medians of calls taken in turn in one process. MONAI's suppression is timed where MONAI is installed; it has
no RoIAlign.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from deepem.models.detection.boxes import nms  # noqa: E402
from deepem.models.detection.mask_rcnn import MaskRCNN  # noqa: E402
from deepem.models.detection.roi_align import roi_align  # noqa: E402
from deepem.utils.allocator import keep_memory  # noqa: E402


class Pyramid(nn.Module):
    """Two maps, strides 4 and 8: a backbone that takes little of the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels, self.strides = width, {"p2": (4, 4, 4), "p3": (8, 8, 8)}
        self.fine = nn.Sequential(nn.Conv3d(1, width, 4, 4), nn.ReLU(), nn.Conv3d(width, width, 3, padding=1))
        self.coarse = nn.Sequential(nn.ReLU(), nn.Conv3d(width, width, 2, 2))

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(N, 1, Z, Y, X) -> maps, finest first."""
        fine = self.fine(x)
        return OrderedDict(p2=fine, p3=self.coarse(fine))


def boxes_in(side: float, count: int, device: str) -> Tensor:
    """Boxes of 8 to 28 voxels within a cube."""
    low = torch.rand(count, 3) * side
    return torch.cat([low, low + 8 + torch.rand(count, 3) * 20], 1).to(device)


def seconds(rounds: int, device: str, **calls: Callable[[], object]) -> dict[str, float]:
    """Median of each call, called in turn after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if number:
                taken[name].append(time.perf_counter() - began)
    return {name: round(statistics.median(each), 4) for name, each in taken.items()}


def suppression(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ours, and MONAI's on as many boxes if it is installed."""
    boxes, scores = boxes_in(200, arguments.boxes, arguments.device), torch.rand(arguments.boxes).to(arguments.device)
    calls: dict[str, Callable[[], object]] = {"nms": lambda: nms(boxes, scores, 0.3)}
    try:
        from monai.data.box_utils import non_max_suppression
    except ImportError:
        pass
    else:
        calls["monai_nms"] = lambda: non_max_suppression(boxes, scores, 0.3)
    kept = len(nms(boxes, scores, 0.3))
    return {"boxes": len(boxes), "kept": kept, **seconds(arguments.rounds, arguments.device, **calls)}


def aligned(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of RoIAlign on a map of stride 4 of 256^3 voxels."""
    features = torch.randn(1, arguments.width, 64, 64, 64, device=arguments.device, requires_grad=True)
    boxes = boxes_in(220, arguments.rois, arguments.device)
    rois = torch.cat([torch.zeros(len(boxes), 1, device=boxes.device), boxes], 1)

    def both(bins: int) -> Callable[[], object]:
        def call() -> None:
            roi_align(features, rois, bins, 0.25, 2, True).sum().backward()
            features.grad = None

        return call

    calls = {"roi_align_7": both(7), "roi_align_14": both(14)}
    return {"rois": len(rois), "channels": arguments.width, **seconds(arguments.rounds, arguments.device, **calls)}


def stepped(arguments: argparse.Namespace) -> dict[str, Any]:
    """A step of a detector on balls, and its prediction of a tile."""
    size = tuple(arguments.patch)
    axes = torch.meshgrid(*(torch.arange(n) % 16 - 8 for n in size), indexing="ij")
    cells = torch.stack(torch.meshgrid(*(torch.arange(n) // 16 for n in size), indexing="ij"))
    number = (cells[0] * 1000 + cells[1]) * 1000 + cells[2] + 1
    labels = (number * (sum(a**2 for a in axes) < 36))[None, None].to(arguments.device)
    batch = {"input": (labels > 0).float(), "instance": labels}
    rois = {"box_batch_size_per_image": arguments.step_rois, "box_detections_per_img": arguments.step_rois}
    widths = {"representation_size": 256, "mask_layers": (arguments.width,) * 4}
    model = MaskRCNN(Pyramid(arguments.width), 2, **rois, **widths, paste_masks=False).to(arguments.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.amp):
            losses, _ = model.train().losses(batch)
        torch.stack([loss for loss, _ in losses.values()]).sum().backward()
        optimizer.step()

    @torch.no_grad()
    def tile() -> None:
        with torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.amp):
            model.eval()(batch["input"])

    found = seconds(arguments.rounds, arguments.device, step=step, tile=tile)
    objects = len(labels.unique()) - 1
    return {
        "patch": size,
        "objects": objects,
        "amp": arguments.amp,
        **found,
        "tiles_per_s": round(1 / found["tile"], 2),
    }


def main() -> None:
    """Read the command line and print the figures as JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"nms": suppression, "roi_align": aligned, "step": stepped}
    p.add_argument("part", choices=[*parts, "all"])
    p.add_argument("--boxes", type=int, default=10000)
    p.add_argument("--rois", type=int, default=256)
    p.add_argument("--width", type=int, default=64, help="channels of the maps and of the mask head")
    p.add_argument("--patch", type=int, nargs=3, default=[64, 64, 64])
    p.add_argument("--step_rois", type=int, default=16, help="proposals trained on per image")
    p.add_argument("--amp", action="store_true", help="bfloat16")
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    arguments = p.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    keep_memory()
    for name, part in parts.items():
        if arguments.part in (name, "all"):
            print(json.dumps({"part": name, "threads": arguments.threads, **part(arguments)}))


if __name__ == "__main__":
    main()
