"""Renders the pages of `deepem report`, and puts numbers, times and lists into words for them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deepem.tools.charts import number
from deepem.utils.provenance import provenance

HERE = Path(__file__).with_name("page")

PROGRAMS = {"train/run.py": "deepem train", "test/forward.py": "deepem forward", "__main__.py": "deepem"}


def render(template: str, **values: Any) -> str:
    """Return a page as one file.

    Every value is escaped, and the page's own policy forbids the browser all requests and any script but its own.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "number": number,
        "bytes": in_bytes,
        "time": in_time,
        "words": words,
        "basename": lambda path: os.path.basename(str(path)),
    }
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values |= {"style": style, "script": script, "script_hash": mark}
    values |= {"version": provenance()["version"], "now": datetime.now(timezone.utc)}
    text = environment.get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode()  # file names and JSON may hold what UTF-8 cannot


def words(name: str) -> str:
    """Return the name of an output or value as words."""
    return name.replace("_", " ").replace("/", ", ")


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as in a sentence: a, b and c."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def in_time(when: datetime) -> str:
    """Return a time to the minute."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def in_bytes(size: int | None) -> str:
    """Return a number of bytes with its unit."""
    value = float(size or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return "" if size is None else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def neat(command: str) -> str:
    """Return a recorded command line as one types it: deepem VERB in place of the path of a file."""
    for file, program in PROGRAMS.items():
        command = re.sub(rf"^\S*deepem/{re.escape(file)}(?=\s|$)", program, command)
    return re.sub(r"^\S*/(deepem(?:-train|-forward)?)(?=\s|$)", r"\1", command)
