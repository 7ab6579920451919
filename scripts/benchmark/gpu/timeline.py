"""Reads a trace of the profiler: how long the device was busy and idle, and what the program did meanwhile."""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Span = tuple[float, float]
"""Begin and end, in microseconds."""

COPIES = ("gpu_memcpy",)
ON_DEVICE = ("kernel", "gpu_memset", *COPIES)
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls in which the program waits for the device."""


class Timeline:
    """A trace of some steps.

    Attributes:
        steps: The spans of the steps on the host.
        busy: When the device computed or copied; overlapping spans joined. Empty on a CPU.
        computed: When it computed.
        copies: Its copies between host and device, as (name, span).
        stages: The named stages of the loop, as (name, span).
        calls: The calls of the CUDA runtime, as (name, span).
    """

    def __init__(self, path: Path) -> None:
        events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("ph") == "X"]
        self.steps = sorted(_span(e) for e in events if str(e["name"]).startswith("ProfilerStep"))
        # names of torch's own have a number sign in them, and lie within stages
        own = [e for e in events if e.get("cat") == "user_annotation" and "#" not in str(e["name"])]
        self.stages = sorted(((str(e["name"]), _span(e)) for e in own), key=lambda stage: stage[1])
        self.busy = joined(_span(e) for e in events if e.get("cat") in ON_DEVICE)
        self.computed = joined(_span(e) for e in events if e.get("cat") == "kernel")
        copies = [e for e in events if e.get("cat") in COPIES]
        self.copies = [(str(e["name"]), _span(e)) for e in copies if any(w in e["name"] for w in ("HtoD", "DtoH"))]
        self.calls = [(str(e["name"]), _span(e)) for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")]

    @property
    def window(self) -> Span:
        """From the begin of the first step to the end of the last."""
        if self.steps:
            return self.steps[0][0], self.steps[-1][1]
        return self.busy[0][0], self.busy[-1][1]

    def idle(self) -> list[Span]:
        """Return the gaps in which the device did nothing."""
        begin, end = self.window
        edges = [begin, *(edge for span in within(self.busy, self.window) for edge in span), end]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]

    def idle_by_stage(self) -> Counter[str]:
        """Return the idle microseconds of the device by the stage that the program was in meanwhile."""
        gaps, found = self.idle(), Counter[str]()
        for name, span in self.stages:
            found[name] += round(length(within(gaps, span)))
        found["between stages"] = round(length(gaps)) - sum(found.values())
        return found

    def by_stage(self) -> Counter[str]:
        """Return the microseconds of the program by stage."""
        found, (begin, end) = Counter[str](), self.window
        for name, span in self.stages:
            found[name] += round(length(within([span], (begin, end))))
        found["between stages"] = round(end - begin) - sum(found.values())
        return found

    def waiting(self) -> Counter[str]:
        """Return the microseconds that the program waited for the device, by call."""
        found = Counter[str]()
        for name, span in self.calls:
            if name.startswith(WAITS):
                found[name] += round(length(within([span], self.window)))
        return found

    def hidden(self) -> float | None:
        """Return the share of the copies' time in which the device also computed; None without copies."""
        spans = joined(span for _, span in self.copies)
        covered = sum(length(within(self.computed, span)) for span in spans)
        return covered / length(spans) if spans else None


def _span(event: dict[str, Any]) -> Span:
    return event["ts"], event["ts"] + event.get("dur", 0.0)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def within(spans: list[Span], inside: Span) -> list[Span]:
    """Return the parts of sorted spans without overlap that lie within another span."""
    first = max(bisect.bisect_right(spans, inside[0], key=lambda span: span[0]) - 1, 0)
    found = []
    for begin, end in spans[first:]:
        if begin >= inside[1]:
            break
        if end > inside[0]:
            found.append((max(begin, inside[0]), min(end, inside[1])))
    return found


def length(spans: Iterable[Span]) -> float:
    """Return the summed length."""
    return sum(end - begin for begin, end in spans)
