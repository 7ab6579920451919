"""Estimate the memory of a scan, and split the volume so that the scan fits.

A volume is split in y and x into columns, which are scanned one after the other along z. Input and sums of two runs are
in memory at a time: one run is computed while another is read or written. Memory therefore depends on the size of a
column and the depth of a run, not on the volume::

        y                       Patches that touch two columns are computed twice. Wider columns
        |  +----+----+----+     need more memory but repeat fewer patches.
        |  |    |    |    |
        |  +----+----+----+     Averages over flips are also split along z. Their runs cannot carry
        |  |    |    |    |     sums over, because a z flip scans in the opposite direction.
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
"""Minimum number of runs, even if memory allows fewer, so that reading and writing overlap with the network."""
HOUSE = 16 * MIB
"""Additional memory of threads and open files."""
GAPS = 1.1
"""Bytes that the allocator reserves per byte requested."""


@dataclass(frozen=True)
class Cost:
    """Memory costs in bytes.

    Attributes:
        image: Bytes per input voxel, over all channels.
        output: Bytes per voxel of all sums together.
        network: Bytes of one network call, including weights and patches.
    """

    image: int
    output: int
    network: int


@dataclass(frozen=True)
class Cut:
    """A volume split to fit in memory.

    Attributes:
        boxes: The columns or blocks, in the order of computation.
        depth: The last argument of `run`.
        need: Approximate memory in bytes.
        patches: Total number of patches; a patch that is computed twice counts twice.
    """

    boxes: list[Box]
    depth: int
    need: int
    patches: int


def cut(run: Scan | Augmented, grid: Grid, box: Box, cost: Cost, limit: float, align: Vec3 = (1, 1, 1)) -> Cut | None:
    """Return the split with the fewest columns that needs at most `limit` bytes; None if there is none.

    Args:
        run: The scan that computes the boxes.
        grid: The patches of the volume.
        box: The box to compute.
        cost: Memory costs.
        limit: Available memory in bytes.
        align: Columns begin at multiples of this from the begin of the box, such as the size of storage blocks.
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
    """Return the layers per run: as many as fit, but few enough that reading and computing overlap."""
    layers = len(grid.touching(box)[0])
    wanted = -(-layers // RUNS)
    while wanted > 1 and _need(run, grid, tile, wanted, cost, align) > limit:
        wanted -= 1
    return wanted


def _need(run: Scan | Augmented, grid: Grid, tile: Vec3, depth: int, cost: Cost, align: Vec3) -> int:
    """Return the bytes for a (y, x) column with `depth` layers per run or, with flips, a block of `depth` planes."""
    flips = isinstance(run, Augmented)
    planes = depth if flips else (depth - 1) * grid.stride[0] + grid.output[0]
    grown = vec3(min(t + 2 * p, n) for t, p, n in zip((planes, *tile[1:]), grid.patch, grid.size, strict=True))
    read = math.prod(grown) * cost.image
    plane = tile[1] * tile[2] * cost.output
    weights = 4 * KEPT * math.prod(grid.output)
    scan = next(iter(run.scans.values())) if isinstance(run, Augmented) else run
    sums = scan.sum_dtype().itemsize / 4  # dtype of the running sums; finished planes are float32
    if flips:  # mean, count and variance; mean and variance being written; one flip's sums, and the sums flipped back
        return int(GAPS * (cost.network + weights + 3 * read + (6 + sums) * planes * plane))
    # Running sums and sums being written, with a float32 copy if they are float64. A layer of chunks: waiting, joined,
    # stored and read back. Input: of this run, of the next run, and both joined.
    copies = 2 if sums == 1 else 2 + sums
    waiting = 4 * align[0] if align[0] > 1 else 1
    return int(GAPS * (cost.network + weights + 3 * read + (copies * planes + waiting) * plane))


def trial(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory of a call in bytes, on the device or in this process, plus `HOUSE`; 0 if unknown."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return int(torch.cuda.max_memory_allocated(device))
    known = _reset_peak()
    before = status("VmRSS") if known else 0
    call()
    call()  # memory fragmented by the first call would distort the second
    return max(status("VmHWM") - before, 0) + HOUSE if known else 0


def _reset_peak() -> bool:
    """Reset the kernel's record of this process' peak memory; Linux only."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def status(key: str) -> int:
    """Return a size in bytes from /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


def available(device: torch.device) -> int:
    """Return the memory limit of a scan in bytes: 90 % of the free GPU memory, or half of the free main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.9)
    return free_memory() // 2
