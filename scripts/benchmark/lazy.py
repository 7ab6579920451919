#!/usr/bin/env python
"""How fast samples come from volumes that stay on disk, against the same volumes in memory.

Patch 20x256x256, tasks aff + mit, two workers. For each recipe, container, chunk and cache it gives the best of several
rounds that take turns: samples/s in memory and from disk and the step time that the latter would feed, by the clock on
the wall; and milliseconds of CPU per sample in memory, from disk, and of reading and decoding the touched chunks alone.
CPU times hold on a busy machine too. The last three columns are ratios of CPU times: in memory to from disk, from disk
to decoding, and from disk to decoding plus in memory::

    python scripts/benchmark/lazy.py                      # 64x768x768: chunks 64^3 and 128^3, HDF5 and zarr
    python scripts/benchmark/lazy.py --quick              # one of each
    python scripts/benchmark/lazy.py memory               # proportional set size for a volume 16 times as large

Targets: 0.8 of in-memory once the cache holds what is drawn from; below that within 1.3 of the decoding time. The
second is out of reach where a sample takes longer to make than to decode; there, the last column says what lazy volumes
add to both.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import h5py  # noqa: E402
import numpy as np  # noqa: E402

from deepem.data import cache  # noqa: E402
from deepem.data.loader import batches  # noqa: E402
from deepem.data.sampler.basic import Sampler, get_spec  # noqa: E402
from deepem.data.volume import compact  # noqa: E402
from deepem.data.worker import generator  # noqa: E402
from deepem.io.lazy import Lazy  # noqa: E402

PATCH = (20, 256, 256)
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("no_aug", {}),
    "flips": ("flip_rotate", {}),
    "flyem.aug_mip1": ("flyem.aug_mip1", {"missing": 7, "blur": 7, "lost": True, "random": True, "box": "noise"}),
}
SHARES = (1.0, 0.25, 0.0625)


def volume(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Grey values that compress as an image does, and labels in blocks as large as cells."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 5000, [-(-n // b) for n, b in zip(shape, (4, 48, 48), strict=True)], dtype=np.int32)
    seg = blocks.repeat(4, 0).repeat(48, 1).repeat(48, 2)[: shape[0], : shape[1], : shape[2]]
    img = (rng.normal(128, 12, shape) + seg % 50).clip(0, 255).astype(np.uint8)
    return {"img": img, "seg": seg, "mit": (seg % 8 == 0).astype(np.uint8)}


def stored(folder: Path, arrays: dict[str, Any], form: str, chunk: int, packed: bool) -> dict[str, str]:
    """The volume on disk."""
    paths = {}
    for key, array in arrays.items():
        chunks = tuple(min(chunk, n) for n in array.shape)
        if form == "HDF5":
            paths[key] = str(folder / f"{key}.h5")
            with h5py.File(paths[key], "w") as file:
                how = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if packed else {}
                file.create_dataset("main", data=array, chunks=chunks, **how)
        else:
            import zarr

            paths[key] = str(folder / f"{key}.zarr")
            how = {} if packed else {"compressors": None}
            zarr.create_array(paths[key], shape=array.shape, dtype=array.dtype, chunks=chunks, **how)[:] = array
    return paths


def make_sampler(given: dict[str, Any], recipe: str, room: int | None) -> Sampler:
    """A sampler for aff + mit."""
    spec = get_spec({"input": (1, *PATCH)}, {"affinity": (3, *PATCH), "mitochondria": (1, *PATCH)})
    arrays = {"v": compact("v", given, ("seg", "mit"), "train")}
    if room is not None:
        cache.share(arrays, {}, room, 2)
    module, flags = RECIPES[recipe]
    augment = importlib.import_module(f"deepem.data.augment.{module}").get_augmentation(True, **flags)
    return Sampler(arrays, spec, True, augment)


Pace = tuple[float, float]
"""Samples per second by the clock on the wall, and seconds of CPU per sample."""


class Loader:
    """A loader with two workers that has made some batches of one sample.

    Args:
        sampler: Makes the samples.
        warm: Number of batches to make first.
    """

    def __init__(self, sampler: Sampler, warm: int) -> None:
        before = {child.pid for child in multiprocessing.active_children()}
        self.stream = batches(sampler, seed=0, phase="train", start=0, stop=10**6, batch_size=1, num_workers=2)
        for _ in range(warm):
            next(self.stream)
        self.pids = [child.pid for child in multiprocessing.active_children() if child.pid not in before]

    def measure(self, count: int) -> Pace:
        """Make some batches. Both workers are idle before and after, because their queues are full."""
        own, begun, clock = time.process_time(), self._workers(), time.perf_counter()
        for _ in range(count):
            next(self.stream)
        seconds, mine = time.perf_counter() - clock, time.process_time() - own
        return count / seconds, (mine + self._workers() - begun) / count

    def _workers(self) -> float:
        """Seconds of CPU that the workers have used, once they wait."""
        last, now = -1.0, sum(map(cpu_seconds, self.pids))
        while now != last:
            time.sleep(0.3)
            last, now = now, sum(map(cpu_seconds, self.pids))
        return now


def cpu_seconds(pid: int | None) -> float:
    """Seconds of CPU, of user and system, that all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def decoding(sampler: Sampler, count: int) -> float:
    """Seconds of CPU per sample of a process that only reads and decodes the chunks that each sample touches."""
    begun = time.process_time()
    for index in range(10**6, 10**6 + count):
        dataset, request, _, pos = sampler.provider._draw(generator(0, "train", index))
        for key, size in request.size.items():
            array = dataset.array(key)
            for at in itertools.product(*cache._span(array, dataset._box(key, pos, size))):
                array.read(cache._box_of(array, at))
    return (time.process_time() - begun) / count


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print a row for each combination."""
    shape = tuple(args.size)
    arrays, rows = volume(shape), []
    total = sum(array.nbytes for array in arrays.values())
    forms = [("HDF5", 64, True), ("zarr", 64, False)] if args.quick else [
        *itertools.product(("HDF5", "zarr"), (64, 128), (False, True))
    ]  # fmt: skip
    heads = ("recipe", 16), ("stored", 26), ("cache", 7), ("memory/s", 9), ("disk/s", 8), ("feeds ms", 9)
    more = ("CPU ms: memory", 15), ("disk", 7), ("decoding", 9), ("ratio", 6), ("of decoding", 12), ("of both", 7)
    print("".join(f"{word:{width}}" for word, width in (*heads, *more)))
    for form, chunk, packed in forms:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            paths = stored(Path(folder), arrays, form, chunk, packed)
            for recipe in args.recipe or RECIPES:
                held = Loader(make_sampler(arrays, recipe, None), 10)
                bare = make_sampler({k: Lazy(p) for k, p in paths.items()}, recipe, 0)
                for share in SHARES:
                    lazy = make_sampler({k: Lazy(p) for k, p in paths.items()}, recipe, int(share * total))
                    if share == 1:  # it holds all that is drawn from
                        middle = tuple(n // 2 for n in shape)
                        lazy.provider.leaves()[0].fetch(middle, dict.fromkeys(arrays, shape))
                    drawn = Loader(lazy, 10)
                    name = f"{form} {chunk}^3 {'compressed' if packed else 'raw'}"
                    turns = [(held.measure(args.samples), drawn.measure(args.samples),
                              decoding(bare, args.samples // 3)) for _ in range(args.rounds)]  # fmt: skip
                    drawn.stream.close()
                    rows.append({"recipe": recipe, "stored": name, "cache": share, **best(turns)})
                    print(line(rows[-1]), flush=True)
                held.stream.close()
    return rows


def best(turns: list[tuple[Pace, Pace, float]]) -> dict[str, float]:
    """The best of the rounds, and the ratios of their CPU times."""
    (memory, memory_cpu), (disk, disk_cpu) = (
        (max(turn[i][0] for turn in turns), min(turn[i][1] for turn in turns)) for i in (0, 1)
    )
    bare = min(turn[2] for turn in turns)
    return {"memory": memory, "disk": disk, "memory_cpu": memory_cpu, "disk_cpu": disk_cpu, "decoding_cpu": bare,
            "ratio": memory_cpu / disk_cpu, "of_decoding": disk_cpu / bare,
            "of_both": disk_cpu / (bare + memory_cpu)}  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    cpu = [1e3 * row[key] for key in ("memory_cpu", "disk_cpu", "decoding_cpu")]
    return (
        f"{row['recipe']:16}{row['stored']:26}{row['cache']:<7.4g}{row['memory']:<9.1f}{row['disk']:<8.1f}"
        f"{1e3 / row['disk']:<9.1f}{cpu[0]:<15.1f}{cpu[1]:<7.1f}{cpu[2]:<9.1f}{row['ratio']:<6.2f}"
        f"{row['of_decoding']:<12.2f}{row['of_both']:.2f}"
    )


def proportional_mb(pid: int) -> float:
    """Memory of a process, what it shares divided among those that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Memory of the run and its workers, for a volume and one 16 times as large, with a cache of 32 MB."""
    rows = []
    for factor in (1, 4):
        shape = (64, 512 * factor, 512 * factor)
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            path = f"{name}/v.h5"
            with h5py.File(path, "w") as file:
                for key, dtype in (("img", "u1"), ("seg", "u4"), ("mit", "u1")):
                    array = file.create_dataset(key, shape=shape, dtype=dtype, chunks=(64, 64, 64), compression="lzf")
                    for y in range(0, shape[1], 512):
                        array[:, y : y + 512] = np.random.default_rng(y).integers(0, 200, (64, 512, shape[2])) // 8
            sampler = make_sampler({k: Lazy(f"{path}:{k}") for k in ("img", "seg", "mit")}, "flips", 32 << 20)
            made = Loader(sampler, args.samples)
            pids = [os.getpid(), *made.pids]
            rows.append({"voxels": int(np.prod(shape)), "mb": sum(proportional_mb(int(pid)) for pid in pids)})
            made.stream.close()
            print(f"{shape}: {rows[-1]['mb']:.0f} MB in {len(pids)} processes", flush=True)
    print(f"ratio {rows[1]['mb'] / rows[0]['mb']:.2f}")
    return rows


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="compare|memory", default=["compare"])
    parser.add_argument("--size", type=int, nargs=3, default=(64, 768, 768))
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", nargs="+", choices=RECIPES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the volumes are written")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    out = {what: {"compare": compare, "memory": memory}[what](args) for what in args.what}
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
