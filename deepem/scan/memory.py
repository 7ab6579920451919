"""How much memory a scan takes, and the cut of a volume that fits.

A volume is cut in y and x into columns, which are scanned one after the other along z. Two runs of input and of sums
are alive at a time (the one that is computed, and one being read or written), so that memory depends on the columns and
on the depth of a run, never on the volume::

        y                       Patches that touch two columns are computed for both: a wider column
        |  +----+----+----+     costs more memory and fewer of them twice.
        |  |    |    |    |
        |  +----+----+----+     Averages over flips are cut along z as well: their runs do not carry
        |  |    |    |    |     sums over, since a flip of z would run the other way.
        +--+----+----+----+-> x
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deepem.scan.augment import Augmented
from deepem.scan.grid import Grid
from deepem.scan.stitch import Scan
from deepem.scan.weights import KEPT
from deepem.utils.geometry import Box, Tiles, Vec3, vec3
from deepem.utils.main_memory import MIB, free_memory

RUNS = 4
"""Runs that a scan is cut into where memory allows fewer: reading and writing go on beside the network."""
HOUSE = 16 * MIB
"""What threads and open files take besides."""
GAPS = 1.1
"""What an allocator takes for each byte that it is asked for."""


@dataclass(frozen=True)
class Cost:
    """What takes memory, in bytes.

    Attributes:
        image: Of one input voxel, all channels.
        output: Of one voxel of all sums.
        network: Of one call of the network, weights and patches included.
    """

    image: int
    output: int
    network: int


@dataclass(frozen=True)
class Cut:
    """A volume cut to fit in memory.

    Attributes:
        boxes: The columns, or blocks, in the order in which they are computed.
        depth: What `run` takes as its last argument.
        need: Bytes in all, about.
        patches: Patches in all, those that are computed twice counted twice.
    """

    boxes: list[Box]
    depth: int
    need: int
    patches: int


def cut(run: Scan | Augmented, grid: Grid, box: Box, cost: Cost, limit: float, align: Vec3 = (1, 1, 1)) -> Cut | None:
    """The cut with the fewest columns that needs at most `limit` bytes; None if there is none.

    Args:
        run: What computes the boxes.
        grid: The patches of the volume.
        box: What is to be computed.
        cost: Bytes per voxel.
        limit: Bytes.
        align: Columns begin at multiples of this after the box's begin (storage blocks, say).
    """
    flips = isinstance(run, Augmented)
    unit = vec3(a * max(1, round(s / a)) for a, s in zip(align, grid.stride, strict=True))
    most = vec3(-(-n // u) for n, u in zip(box.size, unit, strict=True))
    count = [1, 1, 1]  # pieces along z, y, x
    while True:
        tile = vec3(min(-(-m // c) * u, n) for m, c, u, n in zip(most, count, unit, box.size, strict=True))
        depth = tile[0] if flips else _depth(run, grid, box, tile, cost, limit, align)
        need = _need(run, grid, tile, depth, cost, align)
        if need <= limit:
            boxes = list(Tiles(box, tile if flips else (box.size[0], tile[1], tile[2])))
            return Cut(boxes, depth, need, sum(run.count(b) for b in boxes))
        units = [t / u if c < m else 0 for t, u, c, m in zip(tile, unit, count, most, strict=True)]
        axis = max(range(3) if flips else (1, 2), key=units.__getitem__)
        if not units[axis]:
            return None
        count[axis] += 1


def _depth(run: Scan | Augmented, grid: Grid, box: Box, tile: Vec3, cost: Cost, limit: float, align: Vec3) -> int:
    """Layers per run: as many as fit, but not so many that there is nothing to overlap."""
    layers = len(grid.touching(box)[0])
    wanted = -(-layers // RUNS)
    while wanted > 1 and _need(run, grid, tile, wanted, cost, align) > limit:
        wanted -= 1
    return wanted


def _need(run: Scan | Augmented, grid: Grid, tile: Vec3, depth: int, cost: Cost, align: Vec3) -> int:
    """Bytes for a column of that size (y, x), `depth` layers per run, or for a block of `depth` planes with flips."""
    flips = isinstance(run, Augmented)
    planes = depth if flips else (depth - 1) * grid.stride[0] + grid.output[0]
    grown = vec3(min(t + 2 * p, n) for t, p, n in zip((planes, *tile[1:]), grid.patch, grid.size, strict=True))
    read = math.prod(grown) * cost.image
    plane = tile[1] * tile[2] * cost.output
    weights = 4 * KEPT * math.prod(grid.output)
    scan = next(iter(run.scans.values())) if isinstance(run, Augmented) else run
    sums = scan.sum_dtype().itemsize / 4  # of the sums at work; what is handed over is float32
    if flips:  # mean, its count, variance, and both being written; one flip's sums and their way back
        return int(GAPS * (cost.network + weights + 3 * read + (6 + sums) * planes * plane))
    # sums at work and being written, with their float32 copy if they are none; a layer of chunks waiting, joined,
    # stored and read back; input at work, next, and both joined
    copies = 2 if sums == 1 else 2 + sums
    waiting = 4 * align[0] if align[0] > 1 else 1
    return int(GAPS * (cost.network + weights + 3 * read + (copies * planes + waiting) * plane))


def trial(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call takes at its peak: on the device, or in this process, with `HOUSE` added; 0 if not known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return int(torch.cuda.max_memory_allocated(device))
    known = _reset_peak()
    before = status("VmRSS") if known else 0
    call()
    call()  # what the first left behind lies between the blocks of the second
    return max(status("VmHWM") - before, 0) + HOUSE if known else 0


def _reset_peak() -> bool:
    """Make the kernel forget this process' peak so far; Linux only."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def status(key: str) -> int:
    """A size in bytes from /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


def available(device: torch.device) -> int:
    """Bytes that a scan may take: nine tenths of what is free on a GPU, half of what is free in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.9)
    return free_memory() // 2
