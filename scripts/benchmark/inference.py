#!/usr/bin/env python3
"""What stitching costs: over the bare network, per patch, in memory, and against MONAI's sliding window.

    inference.py blend      scan and blend per patch of 20x128x128, 4 channels, with a network that does nothing
    inference.py stitched   voxels/s from file to file over the bare network's on the same patches; scanned: to no file
    inference.py memory     peak memory for volumes 1, 4 and 16 times as long and as wide, at the same --max_memory
    inference.py monai      time and memory against monai.inferers.sliding_window_inference (needs monai)
    inference.py peak       one run of the last two, in this process

Figures are medians of interleaved rounds, in one process for the first two and in processes of their own for the
others; every process is pinned alike. Peak memory is that above what imports, weights and the input file take.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from deepem.io.files import opened_image  # noqa: E402
from deepem.io.sink import Hdf5Sink  # noqa: E402
from deepem.models import rsunet  # noqa: E402
from deepem.scan.grid import Grid  # noqa: E402
from deepem.scan.memory import Cost, cut, status, trial  # noqa: E402
from deepem.scan.patch_network import Network  # noqa: E402
from deepem.scan.stitch import Scan  # noqa: E402
from deepem.test.stream import Nowhere, stream  # noqa: E402
from deepem.utils.allocator import keep_memory  # noqa: E402
from deepem.utils.convolution import quick  # noqa: E402
from deepem.utils.geometry import vec3  # noqa: E402

HEADS = {"affinity": 3, "mitochondria": 1}


def interleaved(rounds: int, **calls: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Median (wall, CPU) seconds of each call, called in turn."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in each), statistics.median(c for _, c in each))
        for name, each in taken.items()
    }


def monai_call(image: torch.Tensor, patch: Any, network: Any, batch: int = 1) -> Callable[[], object] | None:
    """MONAI's sliding window over the same image, if it is installed."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return None

    def call() -> object:
        with torch.inference_mode():
            return sliding_window_inference(image, patch, batch, network, overlap=0.5, mode="gaussian")

    return call


def blend(arguments: argparse.Namespace) -> dict[str, Any]:
    """Scan and blend with a network that returns the same tensor every time; each library in processes of its own.

    In one process they share an allocator, and each pays for how the other leaves it.
    """
    runs = [process(arguments, "blending", "--engine", e) for _ in range(arguments.rounds) for e in ("ours", "monai")]
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: round(statistics.median(run[name] for run in runs if name in run), 3) for name in names}


def blending(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per patch of one library."""
    patch, size = (20, 128, 128), (60, 512, 512)
    output = torch.rand(1, 4, *patch)
    image = torch.rand(1, *size)
    grid = Grid(size, patch, patch, (10, 64, 64))
    count = grid.count(grid.covered)

    def scan(infer: Any, depth: int | None) -> Callable[[], object]:
        def call() -> None:
            run = Scan(grid, infer, channels={"a": 4})
            for part in run.run(lambda box: image[(slice(None), *box.slices())], None, depth):
                del part

        return call

    calls: dict[str, Callable[[], object]] = {}
    if arguments.engine == "ours":
        keep_memory()
        logits = Network(lambda patches: {"a": output}, patch, (0, 0, 0))
        calls["whole"] = scan(lambda patches: {"a": output}, None)
        calls["in_runs"] = scan(lambda patches: {"a": output}, 1)
        calls["whole_with_sigmoid"] = scan(logits, None)
    elif (monai := monai_call(image[None], patch, lambda patches: output)) is not None:
        calls["monai"] = monai
    found = interleaved(5, **calls)
    return {f"{name}_ms": wall / count * 1e3 for name, (wall, _) in found.items()} | {
        f"{name}_cpu_ms": cpu / count * 1e3 for name, (_, cpu) in found.items()
    }


def default_network(width: list[int] | None) -> torch.nn.Module:
    """The default network with random weights."""
    torch.manual_seed(0)
    spec = {name: (channels, 1, 1, 1) for name, channels in HEADS.items()}
    return rsunet.create_model(in_spec={"input": (1, 1, 1, 1)}, out_spec=spec, width=width).eval()


def stitched(arguments: argparse.Namespace) -> dict[str, Any]:
    """From an HDF5 file to HDF5 files, over the bare forward passes on the same patches."""
    keep_memory()
    patch = vec3(arguments.patch)
    stride = vec3(n // 2 for n in patch)
    size = vec3(p + s * k for p, s, k in zip(patch, stride, arguments.steps, strict=True))
    grid = Grid(size, patch, patch, stride)
    model, device = default_network(arguments.width), torch.device(arguments.device)
    model.to(device)
    network = Network(model, patch, (0, 0, 0), amp=arguments.amp)
    count = grid.count(grid.covered)
    batch = arguments.batch_size
    patches = torch.rand(batch, 1, *patch, device=device)
    with quick(model), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "img.h5")
        from deepem.data import emio

        emio.imsave(np.random.default_rng(0).integers(0, 256, size, np.uint8), path)

        def scanned() -> None:
            scan_into(Nowhere())

        def whole() -> None:
            paths = {name: Path(folder, f"{name}.h5") for name in HEADS}
            with Hdf5Sink(paths, HEADS, grid.covered, arguments.out_dtype) as sink:
                scan_into(sink)

        def scan_into(sink: Any) -> None:
            scan = Scan(grid, network, device=device, batch_size=batch, channels=HEADS)
            found = cut(scan, grid, grid.covered, Cost(1, 16, 0), 1 << 40)
            assert found is not None
            with opened_image(path) as source:
                stream(scan, found, source, sink, device)

        @torch.no_grad()
        def bare() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.amp):
                for _ in range(-(-count // batch)):
                    model(patches)
            if device.type == "cuda":
                torch.cuda.synchronize()

        bare()
        whole()
        found = interleaved(arguments.rounds, bare=bare, scanned=scanned, stitched=whole)
    return {
        "patch": patch, "volume": size, "patches": count,
        **{f"{name}_seconds": round(wall, 3) for name, (wall, _) in found.items()},
        **{f"{name}_cpu_seconds": round(cpu, 3) for name, (_, cpu) in found.items()},
        "scanned_over_bare": round(found["bare"][0] / found["scanned"][0], 4),
        "stitched_over_bare": round(found["bare"][0] / found["stitched"][0], 4),
        "stitched_over_bare_cpu": round(found["bare"][1] / found["stitched"][1], 4),
        "voxels_per_s": round(grid.covered.voxels / found["stitched"][0]),
    }  # fmt: skip


def process(arguments: argparse.Namespace, what: str, *words: object) -> dict[str, Any]:
    """The figures of a part in a process of its own."""
    command = [sys.executable, __file__, what, "--threads", arguments.threads, *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process that predicts a volume k times as long or as wide, a network of one convolution."""
    found = {}
    for name, longer, wider in (("1", 1, 1), ("4 longer", 4, 1), ("16 longer", 16, 1), ("4 wider", 1, 4),
                                ("16 wider", 1, 16)):  # fmt: skip
        size = 96 * longer, 256, 256 * wider
        words = ["--patch", 8, 64, 64, "--batch_size", 4, "--out_dtype", "uint8", "--max_memory", arguments.max_memory]
        found[name] = process(arguments, "peak", "--size", *size, *words)
    spread = {}
    for key in ("peak", "process"):
        values = [each[f"{key}_mib"] for each in found.values()]
        spread[f"{key}_most_over_least"] = round(max(values) / min(values), 4)
    estimates = [each["peak_mib"] / each["estimate_mib"] for each in found.values()]
    return {
        **found,
        **spread,
        "peak_over_estimate": [round(min(estimates), 3), round(max(estimates), 3)],
    }


def monai(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same network, volume, overlap and batch in MONAI and here, from an HDF5 file to an HDF5 file.

    A network of one convolution on a volume that matters, and the default network on a smaller one.
    """
    found = {}
    small = ["--size", *arguments.size, "--patch", 20, 128, 128]
    large = ["--size", 40, 256, 256, "--patch", 20, 128, 128, "--default"]
    for name, words in {"one convolution": small, "default network": large}.items():
        both: dict[str, list[dict[str, Any]]] = {"ours": [], "monai": []}
        for _ in range(arguments.rounds):
            for engine, runs in both.items():
                runs.append(
                    process(arguments, "peak", *words, "--batch_size", arguments.batch_size, "--engine", engine)
                )
        for engine, runs in both.items():
            keys = ("seconds", "peak_mib")
            found[f"{name}, {engine}"] = {key: statistics.median(run[key] for run in runs) for key in keys}
        for key in ("seconds", "peak_mib"):
            ours, theirs = (found[f"{name}, {engine}"][key] for engine in both)
            found[f"{name}, ours over monai, {key}"] = round(ours / theirs, 4)
    return found


def peak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds, and peak memory, also above what imports and weights take, from an HDF5 file to HDF5 files."""
    import h5py

    if arguments.engine == "ours":
        keep_memory(one_arena=True)
    else:
        import monai.inferers  # noqa: F401  before what it takes is counted
    patch, size = vec3(arguments.patch), vec3(arguments.size)
    net = torch.nn.Conv3d(1, 4, 1)
    model: Any = lambda p: dict(zip(HEADS, torch.split(net(p), [*HEADS.values()], 1), strict=True))  # noqa: E731
    if arguments.default:
        model = default_network(arguments.width)
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "img.h5")
        with h5py.File(image, "w") as file:
            data = file.create_dataset("main", size, np.uint8)
            for z in range(size[0]):
                data[z] = np.random.default_rng(z).integers(0, 256, size[1:], np.uint8)
        before, begun = status("VmRSS"), time.perf_counter()
        run = ours_to_files if arguments.engine == "ours" else monai_to_files
        told = run(arguments, model, image, patch, folder)
        seconds, top = time.perf_counter() - begun, status("VmHWM")
    mib = {"peak_mib": round((top - before) / (1 << 20), 1), "process_mib": round(top / (1 << 20), 1)}
    return {"volume": size, "seconds": round(seconds, 3), **mib, **told}


def ours_to_files(arguments: argparse.Namespace, model: Any, image: Path, patch: Any, folder: str) -> dict[str, Any]:
    """As forward.py does it."""
    network = Network(model, patch, (0, 0, 0))
    with quick(model), opened_image(image) as source:
        taken = trial(lambda: network(torch.zeros(arguments.batch_size, 1, *patch)), torch.device("cpu"))
        grid = Grid(source.size, patch, patch, vec3(n // 2 for n in patch))
        scan = Scan(grid, network, channels=HEADS, batch_size=arguments.batch_size)
        found = cut(scan, grid, grid.covered, Cost(1, 16, taken), arguments.max_memory << 20)
        assert found is not None
        paths = {name: Path(folder, f"{name}.h5") for name in HEADS}
        with Hdf5Sink(paths, HEADS, grid.covered, arguments.out_dtype) as sink:
            stream(scan, found, source, sink, torch.device("cpu"))
    return {"columns": len(found.boxes), "estimate_mib": round(found.need / (1 << 20), 1)}


def monai_to_files(arguments: argparse.Namespace, model: Any, image: Path, patch: Any, folder: str) -> dict[str, Any]:
    """As its users do it: the volume in memory as float32."""
    import h5py

    with h5py.File(image) as file:
        volume = torch.from_numpy(file["main"][()].astype(np.float32)).div_(255)[None, None]

    def joined(patches: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(torch.cat(list(model(patches).values()), 1))

    call = monai_call(volume, patch, joined, arguments.batch_size)
    assert call is not None
    found: Any = call()
    with h5py.File(Path(folder, "out.h5"), "w") as file:
        file["main"] = found[0].numpy()
    return {}


def main() -> None:
    """Run what the command line names and print its figures as JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", nargs="+", choices=["blend", "stitched", "memory", "monai", "peak", "blending"])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--patch", type=int, nargs=3, default=[20, 128, 128])
    p.add_argument(
        "--steps", type=int, nargs=3, default=[2, 2, 2], help="strides that the volume is longer than a patch"
    )
    p.add_argument("--width", type=int, nargs="+", help="of the network (default: that of rsunet)")
    p.add_argument("--batch_size", type=int, default=1)
    p.add_argument("--device", default="cpu")
    p.add_argument("--amp", action="store_true")
    p.add_argument("--max_memory", type=int, default=1024, help="MiB")
    p.add_argument("--size", type=int, nargs=3, default=[128, 512, 512], help="of the volume for monai and peak")
    p.add_argument("--default", action="store_true", help="peak: the default network, else one convolution")
    p.add_argument("--engine", choices=["ours", "monai"], default="ours", help="of peak and blending")
    p.add_argument("--out_dtype", choices=["float32", "uint8"], default="float32")
    arguments = p.parse_args()
    torch.set_num_threads(arguments.threads)
    for what in arguments.what:
        figures = globals()[what](arguments)
        if what not in ("peak", "blending"):
            figures = {"what": what, "threads": arguments.threads, "load": round(os.getloadavg()[0], 1), **figures}
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
