#!/usr/bin/env python3
"""Affinities to segments: seconds against waterz on fib25 tiled to 35 Mvox, and memory as volumes grow.

    segment.py --data ../shared/data/fib25 --tile 1 2 2 --rounds 3
    segment.py --data ../shared/data/fib25 --memory 1 4 16

Affinities are made from the smoothed image, without a network. Each figure is the median of runs taken in turn. The
memory is that of a process which segments an HDF5 file block by block into another one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.segment import segment
from deepem.segment.agglomerate import merge_tree
from deepem.segment.channels import level
from deepem.segment.graph import Table, merged, tabulate
from deepem.segment.join import join
from deepem.segment.label import label_block
from deepem.segment.plan import Plan
from deepem.segment.records import Record
from deepem.segment.relabel import relabel_block
from deepem.segment.select import group, segment_ids
from deepem.tasks import NEAREST_EDGES
from deepem.utils.allocator import keep_memory
from deepem.utils.edges import edge_views
from deepem.utils.geometry import Box, vec3

BLOCK = (64, 128, 128)
EDGES = NEAREST_EDGES[::-1]
"""z, y, x: the order that waterz wants."""


def affinities(folder: Path, tile: tuple[int, ...]) -> NDArray[np.float32]:
    """(3, Z, Y, X) float32, z, y, x: the mean of the smoothed image at both voxels, as bright as no membrane is."""
    with h5py.File(folder / "img.h5") as file:
        image = np.tile(file["main"][:], tile).astype(np.float32)
    bright = np.clip((ndimage.gaussian_filter(image, 1.0) - 60) / 90, 0, 1)
    found = np.zeros((3, *bright.shape), np.float32)
    for affinity, edge in zip(found, EDGES, strict=True):
        first, second = edge_views(bright, edge)
        edge_views(affinity, edge)[0][...] = (first + second) / 2
    return found


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor time of one call, the latter of all threads."""
    start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def by_waterz(
    affinity: NDArray[np.float32], threshold: float, fragments: NDArray[np.uint64] | None = None
) -> NDArray[np.uint64]:
    """The segments that waterz finds, with fragments of its own unless they are given."""
    import waterz

    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # it prints
    try:
        given = None if fragments is None else fragments.copy()  # it writes into them
        (found,) = waterz.agglomerate(affinity, [1 - threshold], fragments=given)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
    return found


def agglomerated(labels: NDArray[np.uint64], values: NDArray[np.uint16], threshold: float) -> NDArray[np.uint64]:
    """Segments from fragments 1, 2, ...: region graph, agglomeration and relabelling, all that waterz does then."""
    found, count, depth = np.empty_like(labels), int(labels.max()) + 1, 4

    def tables(z: int) -> list[Table]:
        before = max(z - 1, 0)
        slab = labels[before : z + depth].astype(np.min_scalar_type(count))  # as blocks have them
        inside = zip(EDGES[1:], values[1:, z : z + depth], strict=True)
        return [tabulate(slab, [(EDGES[0], values[0, before : z + depth])]), tabulate(slab[z - before :], inside)]

    def relabel(z: int) -> None:
        np.take(segments, labels[z : z + depth].astype(np.int64), out=found[z : z + depth], mode="clip")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        table = merged([t for ts in pool.map(tables, range(0, len(labels), depth)) for t in ts])
        segments = merge_tree(table, count, level(threshold)).cut(threshold).astype(np.uint64)
        list(pool.map(relabel, range(0, len(labels), depth)))
    return found


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both, in turn, for the whole and from the same fragments on."""
    affinity, threshold = affinities(arguments.data, tuple(arguments.tile)), arguments.threshold
    fragments = segment(affinity, edges=EDGES, threshold=1.0)
    labels = np.unique(fragments, return_inverse=True)[1].astype(np.uint64).reshape(fragments.shape)
    values = np.rint(affinity * 65535).astype(np.uint16)
    calls: dict[str, Callable[[], NDArray[np.uint64]]] = {
        "whole": lambda: segment(affinity, edges=EDGES, threshold=threshold),
        "waterz_whole": lambda: by_waterz(affinity, threshold),
        "from_fragments": lambda: agglomerated(labels, values, threshold),
        "waterz_from_fragments": lambda: by_waterz(affinity, threshold, labels),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(arguments.rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    found = {n: [statistics.median(x) for x in zip(*pairs, strict=True)] for n, pairs in times.items()}
    return {
        "voxels": affinity[0].size,
        "fragments": int(labels.max()),
        **{f"{name}_segments": len(np.unique(call())) for name, call in calls.items()},
        **{f"{name}_seconds": round(wall, 2) for name, (wall, _) in found.items()},
        **{f"{name}_cpu_seconds": round(cpu, 2) for name, (_, cpu) in found.items()},
        **{
            f"waterz_over_{name}{unit}": round(found[f"waterz_{name}"][i] / found[name][i], 2)
            for name in ("whole", "from_fragments")
            for i, unit in enumerate(("", "_cpu"))
        },
    }


def from_file_to_file(folder: Path, threshold: float) -> None:
    """Segment `in.h5` of a folder into `out.h5`, with everything that passes between the phases on disk."""
    with h5py.File(folder / "in.h5") as source, h5py.File(folder / "out.h5", "w") as target:
        values = source["main"]
        size = vec3(values.shape[1:])
        plan = Plan(Box((0, 0, 0), size), BLOCK, edges=EDGES)
        labels, out = (target.create_dataset(n, size, t, chunks=BLOCK) for n, t in (("labels", "u4"), ("main", "u8")))

        def load(index: int) -> Record:
            with np.load(folder / f"{index}.npz") as arrays:
                return Record.from_arrays(arrays)

        for index, box in enumerate(plan.boxes):
            labels[box.slices()], record = label_block(plan, box, lambda area: values[(slice(None), *area.slices())])
            np.savez(folder / f"{index}.npz", **record.arrays())
        regions = join(plan, load)
        ids = segment_ids(plan, regions, group(plan, regions, threshold))
        for box in plan.boxes:
            out[box.slices()] = relabel_block(
                plan, box, regions, ids, lambda area: labels[area.slices()], lambda area: values[area.slices()]
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"voxels": int(np.prod(size)), "edges": len(regions.near), "peak_mb": round(peak)}))


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Megabytes at most of a process of its own, for volumes of several sizes."""
    affinity = np.rint(affinities(arguments.data, (1, 1, 1)) * 65535).astype(np.uint16)
    found = []
    for times in arguments.memory:
        rows = int(np.sqrt(times))
        z, y, x = affinity.shape[1:]
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            with h5py.File(Path(folder) / "in.h5", "w") as file:
                shape = (3, z, y * rows, x * (times // rows))
                volume = file.create_dataset("main", shape, "u2", chunks=(3, *BLOCK))
                for i in range(rows):
                    for j in range(times // rows):
                        volume[:, :, i * y : (i + 1) * y, j * x : (j + 1) * x] = affinity
            start = time.perf_counter()
            command = [sys.executable, __file__, "--inside", folder, "--threshold", str(arguments.threshold)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(run.stdout) | {"times": times, "seconds": round(time.perf_counter() - start, 1)})
    return {"memory": found}


def main() -> None:
    """Read the command line and print the figures as JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("../shared/data/fib25"), help="a folder with img.h5")
    p.add_argument("--tile", type=int, nargs=3, default=[1, 2, 2])
    p.add_argument("--threshold", type=float, default=0.72)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--memory", type=int, nargs="+", default=[], help="measure memory instead, at these sizes")
    p.add_argument("--scratch", help="where volumes for this are written (default: the system's)")
    p.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = p.parse_args()
    keep_memory()
    if arguments.inside:
        from_file_to_file(arguments.inside, arguments.threshold)
    else:
        print(json.dumps(memory(arguments) if arguments.memory else speed(arguments)))


if __name__ == "__main__":
    main()
