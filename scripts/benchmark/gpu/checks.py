"""Section 1: the tests that need a GPU. With --small, how many there are, and some of their twins on the CPU.

Only the files that hold such tests are collected: the others may need packages that a bare machine does not have.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from figures import arguments, figure

ROOT = Path(__file__).resolve().parents[3]
MARKS = "mark.gpu", "DEVICES"
"""What a file with such tests has in it."""
DONE = re.compile(r"(?:\[gw\d+\] \[ *\d+%\] )?(?P<a>PASSED|FAILED|ERROR|SKIPPED)? ?(?P<test>tests/\S+) ?(?P<b>[A-Z]+)?")
NAMES = {"PASSED": "passed", "FAILED": "failed", "ERROR": "errors", "SKIPPED": "skipped"}
WORKERS = 4


def files() -> list[str]:
    """Return the test files that hold tests for a GPU."""
    found = [
        path for path in sorted((ROOT / "tests").rglob("test_*.py")) if any(mark in path.read_text() for mark in MARKS)
    ]
    return [str(path.relative_to(ROOT)) for path in found]


def collected(marker: str) -> int:
    """Return how many tests a marker selects."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-m", marker, *files()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return sum("::" in line for line in done.stdout.splitlines())


def run(marker: str, more: list[str], where: list[str]) -> int:
    """Run tests and tell each failure and, in the end, the counts. Returns pytest's exit code."""
    apart = ["-n", str(WORKERS)] if importlib.util.find_spec("xdist") and not more else []
    # one v is used up by the -q of the project's settings
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "--tb", "short", "-m", marker, *apart]
    counts, summary = Counter[str](), False
    with subprocess.Popen([*command, *more, *where], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            summary |= "short test summary info" in line  # which names failures again
            match = DONE.match(line)
            result = match and (match["a"] or match["b"])
            if summary or match is None or result not in NAMES:
                continue
            counts[result] += 1
            if result in ("FAILED", "ERROR"):
                figure(match["test"], error=result)
            figure("tests", **{NAMES[name]: counts[name] for name in NAMES})
    return process.returncode


def main() -> None:
    """Run the tests."""
    args = arguments(__doc__)
    if args.small:
        figure("tests for a GPU", count=collected("gpu"))
        sys.exit(run("not slow and not gpu", ["-k", "on_cpu"], files()[:1]))
    sys.exit(run("gpu", [], files()))


if __name__ == "__main__":
    main()
