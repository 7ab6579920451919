"""A laboratory with a small dataset and a small network, and runs in it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lab import Lab, same

from deepem.train.preempt import SIGNALS


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A laboratory of one's own, as the working directory."""
    monkeypatch.chdir(tmp_path)
    threads, handlers = torch.get_num_threads(), {number: signal.getsignal(number) for number in SIGNALS}
    torch.set_num_threads(1)  # a process that is forked off has no others, and would wait for them
    yield Lab.with_network(tmp_path, monkeypatch)
    torch.set_num_threads(threads)
    for number, handler in handlers.items():  # a process that was stopped ignores them to its end
        signal.signal(number, handler)


@pytest.fixture
def equal_runs(lab: Lab) -> Callable[[str, str, int], None]:
    """Asserts that two runs ended in the same state, and logged the same."""

    def check(one: str, other: str, iteration: int) -> None:
        a, b = lab.state(one, iteration), lab.state(other, iteration)
        for key in ("iter", "state_dict", "optimizer", "averages"):
            assert same(a[key], b[key]), key
        assert same(a.get("ema", {}), b.get("ema", {}))
        assert lab.rows(one) == lab.rows(other)

    return check
