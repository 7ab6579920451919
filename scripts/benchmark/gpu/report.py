"""Runs the sections one after the other and writes their figures as they come: one JSON document and one table.

OUT/figures.json and OUT/table.md are written anew, whole, after each figure. A section that fails or takes longer than
its budget leaves its error and the figures so far, and the others go on; logs lie in OUT/logs. The exit code is 1 if a
section failed, else 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MARK = "FIGURE "
TEXTS = ("target", "note", "error")
SMALL_BUDGET = 1800.0
"""Seconds for a section with --small: it takes some on a CPU of one's own, and many minutes on a very busy one."""


@dataclass(frozen=True)
class Section:
    """A part of the benchmark.

    Attributes:
        name: What it is called.
        budget: The seconds that it may take on a GPU; together five minutes.
        words: Its program and the words after it.
        small: The words with --small.
    """

    name: str
    budget: float
    words: tuple[str, ...]
    small: tuple[str, ...]


SECTIONS = (
    Section("tests", 55, ("checks.py",), ("checks.py",)),
    Section("step", 85, ("step.py", "--patch", "20,256,256", "16,128,128"), ("step.py", "--patch", "2,16,16")),
    Section("loop", 55, ("loop.py",), ("loop.py", "--workers", "2")),
    Section("inference", 35, ("stitching.py",), ("stitching.py",)),
    Section("learning", 70, ("learning.py", "--minute", "60"), ("learning.py",)),
)


class Document:
    """The figures of all sections, on disk after each change."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.content: dict[str, Any] = {"machine": machine(), "sections": {}}
        self.write()

    def begin(self, section: str, budget: float, command: list[str]) -> None:
        """Begin a section."""
        row = {"command": command, "budget_s": budget, "seconds": None, "exit_code": None, "error": None, "figures": []}
        self.content["sections"][section] = row
        self.write()

    def add(self, section: str, figure: dict[str, Any]) -> None:
        """Add the figures of a case, in place of those it had."""
        figures = self.content["sections"][section]["figures"]
        places = [i for i, known in enumerate(figures) if known["case"] == figure["case"]]
        if places:
            figures[places[0]] = figure
        else:
            figures.append(figure)
        self.write()

    def end(self, section: str, seconds: float, code: int, error: str | None) -> None:
        """End a section."""
        self.content["sections"][section] |= {"seconds": round(seconds, 1), "exit_code": code, "error": error}
        self.write()

    def write(self) -> None:
        """Write both files, each whole or not at all."""
        for name, text in (("figures.json", json.dumps(self.content, indent=1)), ("table.md", self.table())):
            beside = self.out / f".{name}"
            beside.write_text(text + "\n")
            beside.replace(self.out / name)

    def table(self) -> str:
        """Return the figures as a table in Markdown."""
        lines = ["| section | case | figures | target |", "|---|---|---|---|"]
        lines += [f"| machine | | {'; '.join(f'{key} {value}' for key, value in self.content['machine'].items())} | |"]
        for name, section in self.content["sections"].items():
            for figure in section["figures"]:
                lines.append(
                    f"| {name} | {_cell(figure['case'])} | {_cell(_told(figure))} | {figure.get('target', '')} |"
                )
            state = "running" if section["exit_code"] is None else f"exit code {section['exit_code']}"
            took = "" if section["seconds"] is None else f" after {section['seconds']} s of {section['budget_s']:.0f}"
            error = f"; **{section['error']}**" if section["error"] else ""
            lines.append(f"| {name} | | {_cell(state + took + error)} | |")
        return "\n".join(lines)


def _told(figure: dict[str, Any]) -> str:
    """Write the figures of a case in one cell."""
    numbers = [f"{key} {_number(value)}" for key, value in figure.items() if key not in ("case", *TEXTS)]
    error = [f"**{figure['error']}**"] if "error" in figure else []
    return "; ".join([*numbers, *error, *([figure["note"]] if "note" in figure else [])])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if gpu else None,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "begun": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def lines_of(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """Yield the lines of a program's output as they come, until it ends or the deadline passes."""
    assert process.stdout is not None
    rest, ended = b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not ended and (left := deadline - time.monotonic()) > 0:
            over = process.poll() is not None  # what it has started may keep its output open
            ready = selector.select(min(left, 1.0))
            read = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            ended = over and not read
            if ready and not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def run(section: str, command: list[str], budget: float, document: Document) -> bool:
    """Run a section and return whether it went well."""
    began, last, late = time.monotonic(), "", False
    document.begin(section, budget, command)
    log = document.out / "logs" / f"{section}.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            for line in lines_of(process, began + budget):
                if line.startswith(MARK):
                    figure = json.loads(line.removeprefix(MARK))
                    document.add(section, figure)
                    print(f"{section}: {figure['case']}: {_told(figure)}", flush=True)
                else:
                    file.write(line + "\n")
                    last = line.strip() or last
            late = process.poll() is None and time.monotonic() > began + budget
        finally:
            code = ended(process, 0.0 if late else 30.0)
    error = None
    if late:
        error = f"stopped: it took longer than its budget of {budget:.0f} s"
    elif code:
        failed = [f["case"] for f in document.content["sections"][section]["figures"] if "error" in f]
        error = f"failed: {', '.join(failed)}" if failed else last[:300]
    document.end(section, time.monotonic() - began, code, error)
    print(f"{section}: {error or 'done'} ({time.monotonic() - began:.0f} s)", flush=True)
    return error is None


def ended(process: subprocess.Popen[bytes], patience: float) -> int:
    """Wait for a program to end, then end what it has started too, or else all of it; return its exit code."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=patience)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def main() -> None:
    """Read the command line and run the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="tiny sizes, also on a CPU")
    parser.add_argument("--fib25", type=Path, help="folder that holds fib25/img.h5 and fib25/seg.h5")
    parser.add_argument("--only", nargs="+", choices=[section.name for section in SECTIONS], help="some sections")
    args = parser.parse_args()
    out = args.out.resolve()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    document, went_well = Document(out), True
    for section in SECTIONS:
        if args.only and section.name not in args.only:
            continue
        program, *words = section.small if args.small else section.words
        command = [sys.executable, str(HERE / program), *words, "--out", str(out / section.name)]
        command += ["--small"] if args.small else []
        if section.name == "learning" and args.fib25:
            command += ["--fib25", str(args.fib25.resolve())]
        went_well &= run(section.name, command, SMALL_BUDGET if args.small else section.budget, document)
    raise SystemExit(not went_well)


if __name__ == "__main__":
    main()
