#!/usr/bin/env python
"""How fast samples are drawn and augmented, what each operation costs, how the loader scales, what it holds in memory.

Patch 20x256x256, tasks aff + mit, volumes of 64x768x768, on one pinned core, in its processor time. Every round times
the recipe and, right beside it, a fixed numpy/scipy workload (`--control`), whose recorded ratio to the public
DataProvider3 + Augmentor tells what that stack would reach on this machine at this moment::

    python scripts/benchmark/sampling.py                 # recipes
    python scripts/benchmark/sampling.py operations      # ms per operation
    python scripts/benchmark/sampling.py loader memory   # workers: rate, and proportional set size
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from _control import Control, clock  # noqa: E402
from _dataloader import dataloader_rate  # noqa: E402

from deepem.data import transform  # noqa: E402
from deepem.data.sampler.basic import Sampler, get_spec  # noqa: E402
from deepem.data.volume import compact  # noqa: E402
from deepem.data.worker import Stream, generator, make  # noqa: E402
from deepem.utils.allocator import keep_memory  # noqa: E402

PATCH = (20, 256, 256)
FULL = {"missing": 7, "blur": 7, "lost": True, "random": True}
RECIPES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "none": ("no_aug", {}, "none"),
    "flip_rotate": ("flip_rotate", {}, "flip_rotate"),
    "grayscale_warping": ("grayscale_warping", {"grayscale": True, "warping": True}, "grayscale_warping"),
    "flyem.aug_mip1, no box": ("flyem.aug_mip1", {**FULL, "box": None}, "flyem.aug_mip1, no box"),
    "flyem.aug_mip1, noise box": ("flyem.aug_mip1", {**FULL, "box": "noise"}, "flyem.aug_mip1, noise box"),
}
"""Recipe -> module, flags, and its name in the control's table."""

PEERS = {"none": 463, "flip_rotate": 157}
"""The fastest peer's samples/s where the public stack reached PUBLIC; it is carried over by that ratio."""
PUBLIC = {"none": 400.0, "flip_rotate": 120.0}

OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "FlipRotate": ("FlipRotate", {}),
    "Grayscale2D": ("Grayscale2D", {"contrast_factor": 0.5, "brightness_factor": 0.5, "prob": 1}),
    "Grayscale3D": ("Grayscale3D", {"contrast_factor": 0.5, "brightness_factor": 0.5, "skip": 0}),
    "MixedGrayscale2D": ("MixedGrayscale2D", {"contrast_factor": 0.5, "brightness_factor": 0.5, "prob": 1, "skip": 0}),
    "Warp": ("Warp", {"skip": 0, "do_twist": False, "rot_max": 45, "scale_max": 1.1}),
    "Misalign 0-15": ("Misalign", {"disp": (0, 15), "margin": 1}),
    "SlipMisalign 0-15": ("SlipMisalign", {"disp": (0, 15), "margin": 1, "interp": True}),
    "MisalignPlusMissing": ("MisalignPlusMissing", {"disp": (3, 15), "value": 0}),
    "MixedMissingSection": ("MixedMissingSection", {"maxsec": 7, "individual": True, "value": 0}),
    "MixedBlurrySection": ("MixedBlurrySection", {"maxsec": 7}),
    "LostSection": ("LostSection", {"nsec": 1}),
    "LostPlusMissing": ("LostPlusMissing", {}),
    "NoiseBox": ("NoiseBox", {"sigma": (1, 3), "dims": (5, 25), "margin": (1, 5, 5), "density": 0.3}),
    "FillBox": ("FillBox", {"dims": (5, 25), "margin": (1, 5, 5), "density": 0.3}),
    "BlurBox": ("BlurBox", {"dims": (5, 25), "margin": (1, 5, 5), "density": 0.3}),
    "CutBlur": ("CutBlur", {}),
    "Sharpen": ("Sharpen", {}),
    "Track": ("Track", {}),
    "Rotate 20 degrees": ("Rotate", {"max_degrees": 20, "voxel_size": (10, 1, 1)}),
    "CopyPaste": ("CopyPaste", {"skip": 0}),
    "Label": ("Label", {}),
}


def volume(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Random grey values, and labels in blocks as large as cells."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 5000, [-(-n // b) for n, b in zip(shape, (4, 48, 48), strict=True)], dtype=np.int32)
    seg = blocks.repeat(4, 0).repeat(48, 1).repeat(48, 2)[: shape[0], : shape[1], : shape[2]]
    return {"img": rng.integers(0, 256, shape, dtype=np.uint8), "seg": seg, "mit": seg % 8 == 0}


def make_sampler(augment: Any, shape: tuple[int, int, int] = (64, 768, 768)) -> Sampler:
    """A sampler for aff + mit."""
    spec = get_spec({"input": (1, *PATCH)}, {"affinity": (3, *PATCH), "mitochondria": (1, *PATCH)})
    return Sampler({"v": compact("v", volume(shape), ("seg", "mit"), "train")}, spec, True, augment)


def recipe(name: str) -> Any:
    """The augmentation of a recipe."""
    module, flags, _ = RECIPES[name]
    return importlib.import_module(f"deepem.data.augment.{module}").get_augmentation(True, **flags)


def rate(sampler: Sampler, count: int, first: int) -> float:
    """Samples per second of processor time, over so many samples in a row."""
    return 1e3 * count / sum(clock(lambda i=i: sampler(generator(0, "train", i))) for i in range(first, first + count))


def slot_rate(sampler: Sampler, count: int, first: int) -> float:
    """The same of batches of one sample as the loader's workers make them: in memory that is there, grey as bytes."""
    stream, memory = Stream(sampler, 0, "train"), np.empty(32 * int(np.prod(PATCH)), np.uint8)
    indices = range(first, first + count)
    return 1e3 * count / sum(clock(lambda i=i: make(stream, [i], lambda _: memory)) for i in indices)


def wall_rate(sampler: Sampler, count: int, first: int) -> float:
    """Samples per second of the clock on the wall, which batches are measured by too."""
    start = time.perf_counter()
    for index in range(first, first + count):
        sampler(generator(0, "train", index))
    return count / (time.perf_counter() - start)


def show_recipes(args: argparse.Namespace) -> dict[str, Any]:
    """Samples/s per recipe beside the public stack's, and those of a worker, which leaves grey values bytes."""
    control, sampler, out = Control(args.control), make_sampler(None), {}
    print(f"{'recipe':28}{'samples/s':>11}{'worker':>9}{'public':>9}{'ratio':>8}{'spread':>14}   fastest peer")
    for name, (_, _, key) in RECIPES.items():
        if args.recipe and name not in args.recipe:
            continue
        sampler.provider.set_augment(recipe(name))
        rates, slots, ratios = [], [], []
        rate(sampler, args.samples // 2 + 1, 10**6)
        for turn in range(args.rounds):
            rates.append(rate(sampler, args.samples, turn * args.samples))
            slots.append(slot_rate(sampler, args.samples, turn * args.samples))
            public = control.public(str(key), control.ms(5))
            if public is not None:
                ratios.append(rates[-1] / public)
        row: dict[str, Any] = {"samples_per_s": statistics.median(rates), "worker_per_s": statistics.median(slots)}
        line = f"{name:28}{row['samples_per_s']:11.1f}{row['worker_per_s']:9.1f}"
        if ratios:
            row |= {"ratio": statistics.median(ratios), "ratios": [round(r, 3) for r in ratios]}
            spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
            line += f"{row['samples_per_s'] / row['ratio']:9.1f}{row['ratio']:7.2f}x{spread:>14}"
            if name in PEERS:
                line += f"   {row['ratio'] * PUBLIC[name] / PEERS[name]:.2f}x"
        print(line)
        out[name] = row
    return out


def show_operations(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per sample that each operation adds, when it is applied."""
    sampler, out = make_sampler(None), {}

    def median_ms(augment: Any) -> float:
        sampler.provider.set_augment(augment)
        samples = range(args.samples + 3)
        return statistics.median([clock(lambda i=i: sampler(generator(0, "train", i))) for i in samples][3:])

    bare = median_ms(None)
    print(f"{'bare sample':28}{bare:8.2f} ms\n{'adds':28}")
    for name, (cls, arguments) in OPERATIONS.items():
        out[name] = median_ms(getattr(transform, cls)(**arguments)) - bare
        print(f"{name:28}{out[name]:8.2f} ms")
    return {"bare": bare, **out}


def show_loader(args: argparse.Namespace) -> dict[str, Any]:
    """Batches with workers against the sampler alone on one core.

    By the clock on the wall, which needs idle cores to mean anything, and by the processor time that a batch takes in
    all processes together. Beside it what the machine allows: the sampler alone in as many processes, on a core each,
    which tell each other nothing but share the memory bus; and torch's DataLoader with the same sampler and workers.
    """
    sampler, out = make_sampler(None), {}
    cores = sorted(args.cores)
    print(f"loader on {len(cores)} cores, {args.workers} workers over the sampler alone")
    print(
        f"{'recipe':28}{'alone/s':>9}{'apart/s':>9}{'batches/s':>11}{'apart':>8}{'loader':>8}{'alone ms':>11}"
        f"{'batch ms':>10}{'torch/s':>9}{'over torch':>12}"
    )
    for name in RECIPES:
        if args.recipe and name not in args.recipe:
            continue
        sampler.provider.set_augment(recipe(name))
        rows = []
        os.sched_setaffinity(0, set(cores))
        stream = warm_stream(sampler, args.workers, args.samples)
        for turn in range(args.rounds):
            os.sched_setaffinity(0, {cores[0]})
            alone_ms = 1e3 / rate(sampler, args.samples, turn * args.samples)
            alone = wall_rate(sampler, args.samples, turn * args.samples)
            apart = apart_rate(sampler, args.workers, args.samples, cores)
            os.sched_setaffinity(0, set(cores))
            per_s, batch_ms = batch_rate(stream, args.workers, args.samples * args.workers)
            theirs = dataloader_rate(sampler, args.workers, args.samples)
            rows.append((alone, apart, per_s, apart / alone, per_s / alone, alone_ms, batch_ms, theirs, per_s / theirs))
        stream.close()
        keys = ("alone_per_s", "apart_per_s", "batches_per_s", "apart_ratio", "ratio", "alone_ms", "batch_ms")
        keys += ("torch_per_s", "over_torch")
        row = dict(zip(keys, map(statistics.median, zip(*rows, strict=True)), strict=True))
        print(
            f"{name:28}{row['alone_per_s']:9.1f}{row['apart_per_s']:9.1f}{row['batches_per_s']:11.1f}"
            f"{row['apart_ratio']:7.2f}x{row['ratio']:7.2f}x{row['alone_ms']:11.2f}{row['batch_ms']:10.2f}"
            f"{row['torch_per_s']:9.1f}{row['over_torch']:11.2f}x"
        )
        out[name] = row
    return out


def apart_rate(sampler: Sampler, processes: int, count: int, cores: list[int]) -> float:
    """Samples/s of so many processes together, each with the sampler alone."""
    context = multiprocessing.get_context("fork")
    rates, ready = context.SimpleQueue(), context.Barrier(processes)

    def run(rank: int) -> None:
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
        wall_rate(sampler, 5, 10**6)
        ready.wait()
        rates.put(wall_rate(sampler, count, rank * count))

    children = [context.Process(target=run, args=(rank,)) for rank in range(processes)]
    for child in children:
        child.start()
    total = sum(rates.get() for _ in children)
    for child in children:
        child.join()
    return float(total)


def warm_stream(sampler: Sampler, workers: int, count: int) -> Any:
    """An endless stream of batches whose workers have made `count` each: by then they have touched all their memory."""
    from deepem.data.loader import batches  # here and not above: spawned workers import this file, and need no torch

    stream = batches(sampler, seed=0, phase="train", start=0, stop=10**9, batch_size=1, num_workers=workers)
    for _ in range(count * workers):
        next(stream)
    return stream


def batch_rate(stream: Any, workers: int, count: int) -> tuple[float, float]:
    """Batches/s and processor ms per batch, of all processes, once what was made ahead of time is used up."""
    for _ in range(8 * workers):
        next(stream)
    start, processor = time.perf_counter(), processor_s()
    for _ in range(count):
        next(stream)
    return count / (time.perf_counter() - start), (processor_s() - processor) * 1e3 / count


def processor_s() -> float:
    """Processor time so far of this process and its workers."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def show_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Proportional set size of this process and its workers, which counts each shared page once."""
    from deepem.data.loader import batches

    out: dict[str, Any] = {}
    print(f"{'workers':>8}{'start':>8}{'total MiB':>11}{'growth per worker':>19}")
    alone = 0.0
    sampler = make_sampler(None, args.volume)
    held = sum(sampler.provider.leaves()[0].array(key).nbytes for key in ("img", "seg", "mit"))
    for context in ("fork", "spawn"):
        for workers in (0, 2, 8):
            gc.collect()
            stream = batches(
                sampler, seed=0, phase="train", start=0, stop=1000, batch_size=1, num_workers=workers, context=context
            )
            for _ in range(10 * max(1, workers)):
                next(stream)
            each = [pss(child.pid) for child in multiprocessing.active_children()]
            total = pss(os.getpid()) + sum(each)
            alone = alone if workers else total
            growth = (total - alone) / max(1, workers)
            print(f"{workers:8}{context:>8}{total:11.0f}{growth:19.0f}")
            out[f"{context} {workers}"] = {"total_mib": total, "growth_mib": growth}
            del stream
    print(f"volumes: {held / 2**20:.0f} MiB")
    return {"volumes_mib": held / 2**20, **out}


def pss(pid: int | None) -> float:
    """Proportional set size of a process in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


PARTS = {"recipes": show_recipes, "operations": show_operations, "loader": show_loader, "memory": show_memory}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["recipes"], help=f"of {', '.join(PARTS)} (default: recipes)")
    parser.add_argument("--recipe", nargs="*", help="only these recipes")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, of which the median is shown")
    parser.add_argument("--samples", type=int, default=40, help="samples per round")
    parser.add_argument("--workers", type=int, default=2, help="workers of the loader part")
    parser.add_argument("--core", type=int, help="core to pin to (default: the first allowed one)")
    parser.add_argument("--default_allocator", action="store_true", help="leave glibc's allocator as it is")
    parser.add_argument("--volume", type=int, nargs=3, default=(64, 1536, 1536), help="volume of the memory part")
    parser.add_argument("--control", type=Path, default=ROOT.parent / "shared" / "tools" / "sampling_control.py")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"parts: got {', '.join(unknown)}, wants some of {', '.join(PARTS)}")
    args.cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(args.cores) if args.core is None else args.core})
    cv2.setNumThreads(0)
    if not args.default_allocator:
        keep_memory()
    figures = {part: PARTS[part](args) for part in args.parts}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
