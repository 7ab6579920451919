"""How the sections tell their figures, and what they share: the device, the command line, timing."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch

MARK = "FIGURE "
"""What a line of output that holds a figure begins with."""

NEEDS_GPU = "needs a GPU"


def figure(case: str, **values: Any) -> None:
    """Tell the figures of a case, as soon as they are known. A case that is told again replaces the figures before.

    Values are numbers with the unit in their name, such as ``step_ms``; ``target`` says what is aimed at, ``note`` and
    ``error`` are texts.
    """
    told = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    print(MARK + json.dumps({"case": case, **told}), flush=True)


def attempt(case: str, measure: Callable[[], object]) -> bool:
    """Measure a case; if that fails, the error is its figure and the others go on. Returns whether it went well."""
    try:
        measure()
    except Exception as error:  # noqa: BLE001 - whatever fails here must not take the other figures with it
        traceback.print_exc()
        figure(case, error=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        return False
    except SystemExit as error:
        figure(case, error=f"the program ended with exit code {error.code}")
        return False
    return True


def arguments(description: str | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """Read the command line of a section: --small, --out, and what else it takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see on a CPU that it works")
    parser.add_argument("--out", type=Path, required=True, help="folder for what the section makes on its way")
    for name, settings in more:
        parser.add_argument(name, **settings)
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def device_of(small: bool) -> torch.device:
    """Return the GPU; the CPU if the sizes are small and there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    if not small:
        sys.exit(f"{NEEDS_GPU}, or --small")
    return torch.device("cpu")


def wait(device: torch.device) -> None:
    """Wait for all work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Return the seconds of one step, over several in a row, as the device takes them without waiting between them."""
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - began) / steps


def median_seconds(step: Callable[[], object], steps: int, device: torch.device, rounds: int = 3) -> float:
    """Return the median of `seconds` over some rounds."""
    return statistics.median(seconds(step, steps, device) for _ in range(rounds))


def size(word: str) -> tuple[int, int, int]:
    """Parse Z,Y,X."""
    z, y, x = map(int, word.split(","))
    return z, y, x


def in_words(sizes: Sequence[int], by: str = "x") -> str:
    """Write a size as 20x256x256."""
    return by.join(map(str, sizes))
