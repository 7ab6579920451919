#!/usr/bin/env python
"""How fast samples come from volumes that stay on disk, against the same volumes in memory.

Patch 20x256x256, tasks aff + mit, two workers, by the clock on the wall. For each recipe, container, chunk and cache it
gives samples/s in memory and from disk, the ratio, what decoding the touched chunks alone takes (in two processes, in
the same run), and the step time that the rate would feed::

    python scripts/benchmark/lazy.py                      # 64x768x768: chunks 64^3 and 128^3, HDF5 and zarr
    python scripts/benchmark/lazy.py --quick              # one of each
    python scripts/benchmark/lazy.py memory               # proportional set size for a volume 16 times as large

Targets: 0.8 of in-memory once the cache holds what is drawn from; below that within 1.3 of the decoding time.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
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


def rate(stream: Iterator[Any], count: int) -> float:
    """Batches of one sample per second."""
    begun = time.perf_counter()
    for _ in range(count):
        next(stream)
    return count / (time.perf_counter() - begun)


def loader(sampler: Sampler, warm: int, count: int) -> Iterator[Any]:
    """A loader with two workers that has made some batches."""
    stream = batches(sampler, seed=0, phase="train", start=0, stop=10**6, batch_size=1, num_workers=2)
    for _ in range(warm):
        next(stream)
    return stream


def decoding_rate(sampler: Sampler, count: int) -> float:
    """Samples per second if two processes did nothing but read and decode the chunks that each sample touches."""

    def decode(first: int, queue: Any) -> None:
        begun = time.perf_counter()
        for index in range(first, first + count // 2):
            dataset, request, _, pos = sampler.provider._draw(generator(0, "train", index))
            for key, size in request.size.items():
                array = dataset.array(key)
                for at in itertools.product(*cache._span(array, dataset._box(key, pos, size))):
                    array.read(cache._box_of(array, at))
        queue.put(time.perf_counter() - begun)

    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    workers = [fork.Process(target=decode, args=(10**6 * (i + 1), queue)) for i in range(2)]
    for worker in workers:
        worker.start()
    seconds = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return 2 * (count // 2) / max(seconds)


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print a row for each combination."""
    shape = tuple(args.size)
    arrays, rows = volume(shape), []
    total = sum(array.nbytes for array in arrays.values())
    forms = [("HDF5", 64, True), ("zarr", 64, False)] if args.quick else [
        *itertools.product(("HDF5", "zarr"), (64, 128), (False, True))
    ]  # fmt: skip
    heads = ("recipe", 16), ("stored", 26), ("cache", 7), ("memory/s", 10), ("disk/s", 9), ("ratio", 7)
    print(
        "".join(
            f"{word:{width}}" for word, width in (*heads, ("decoding/s", 12), ("of it", 7), ("feeds a step of", 17))
        )
    )
    for form, chunk, packed in forms:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            paths = stored(Path(folder), arrays, form, chunk, packed)
            for recipe in args.recipe or RECIPES:
                held = loader(make_sampler(arrays, recipe, None), 10, args.samples)
                bare = decoding_rate(make_sampler({k: Lazy(p) for k, p in paths.items()}, recipe, 0), args.samples // 3)
                for share in SHARES:
                    lazy = make_sampler({k: Lazy(p) for k, p in paths.items()}, recipe, int(share * total))
                    if share == 1:  # it holds all that is drawn from
                        array = lazy.provider.leaves()[0]
                        for key in ("img", "seg", "mit"):
                            array.fetch(key, tuple(n // 2 for n in shape), shape)
                    drawn = loader(lazy, 10, args.samples)
                    turns = [(rate(held, args.samples), rate(drawn, args.samples)) for _ in range(args.rounds)]
                    drawn.close()
                    memory, disk = (statistics.median(turn) for turn in zip(*turns, strict=True))
                    name = f"{form} {chunk}^3 {'compressed' if packed else 'raw'}"
                    row = {"recipe": recipe, "stored": name, "cache": share, "memory": memory, "disk": disk,
                           "ratio": disk / memory, "decoding": bare, "of_decoding": bare / disk}  # fmt: skip
                    rows.append(row)
                    print(f"{recipe:16}{name:26}{share:7.4g}{memory:10.1f}{disk:9.1f}{disk / memory:7.2f}{bare:12.1f}"
                          f"{bare / disk:6.2f}x{1e3 / disk:14.1f} ms", flush=True)  # fmt: skip
                held.close()
    return rows


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
                    made = file.create_dataset(key, shape=shape, dtype=dtype, chunks=(64, 64, 64), compression="lzf")
                    for y in range(0, shape[1], 512):
                        made[:, y : y + 512] = np.random.default_rng(y).integers(0, 200, (64, 512, shape[2])) // 8
            sampler = make_sampler({k: Lazy(f"{path}:{k}") for k in ("img", "seg", "mit")}, "flips", 32 << 20)
            stream = loader(sampler, args.samples, 0)
            pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            rows.append({"voxels": int(np.prod(shape)), "mb": sum(proportional_mb(int(pid)) for pid in pids)})
            stream.close()
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
