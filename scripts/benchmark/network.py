#!/usr/bin/env python3
"""What the settings of forward.py make of a network: float32 as torch has it against ours, --amp and --compile.

    network.py --patch 20 128 128 --rounds 5

Seconds are medians of calls on one patch, taken in turn in one process, without stitching.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from inference import default_network, interleaved

from deepem.utils.allocator import keep_memory
from deepem.utils.convolution import quick
from deepem.utils.geometry import vec3


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds per call of the default network in each setting, taken in turn."""
    keep_memory()
    gpu = arguments.device != "cpu"
    plain, ours, third = (default_network(arguments.width).to(arguments.device) for _ in range(3))
    patches = torch.rand(arguments.batch_size, 1, *vec3(arguments.patch), device=arguments.device)

    def call(model: Any, amp: bool, *, exact: bool = False) -> Callable[[], object]:
        @torch.no_grad()
        def run() -> None:
            if gpu:
                torch.backends.cudnn.conv.fp32_precision = "ieee" if exact else "tf32"  # type: ignore[attr-defined]
            with torch.autocast(patches.device.type, torch.bfloat16, enabled=amp):
                model(patches)
            if gpu:
                torch.cuda.synchronize()

        return run

    with quick(ours), quick(third):
        compiled = torch.compile(third, dynamic=False)
        calls = {"eager": call(plain, False, exact=True)}
        calls |= {"ours": call(ours, False), "ours_amp": call(ours, True), "ours_compiled": call(compiled, False)}
        if gpu:
            calls |= {"eager_tf32": call(plain, False), "eager_amp": call(plain, True)}
            calls |= {"ours_amp_compiled": call(compiled, True)}
        began = time.perf_counter()
        for run in calls.values():
            run()
        compiling = time.perf_counter() - began
        found = interleaved(arguments.rounds, **calls)
    eager = found["eager"][0]
    return {
        "compiling_seconds": round(compiling, 1),
        **{f"{name}_seconds": round(wall, 4) for name, (wall, _) in found.items()},
        **{f"eager_over_{name}": round(eager / wall, 3) for name, (wall, _) in found.items() if name != "eager"},
    }


def main() -> None:
    """Read the command line and print the figures as JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--patch", type=int, nargs=3, default=[20, 128, 128])
    p.add_argument("--batch_size", type=int, default=1)
    p.add_argument("--width", type=int, nargs="+", help="of the network (default: that of rsunet)")
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    arguments = p.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"patch": arguments.patch, "threads": arguments.threads, **settings(arguments)}))


if __name__ == "__main__":
    main()
