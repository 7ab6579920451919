"""A training step waits for the device once: when it reads whether loss and gradient are finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deepem.train import guard, loop, transfer

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2"}
"""Operators whose result a GPU must have computed before the program goes on."""

FROM_PYTHON = "lift_fresh"
"""The operator that makes a tensor of Python values; on a GPU that is a copy from memory that is not pinned."""


class Watch(TorchDispatchMode):
    """Notes every operator that would wait for a GPU, by the iteration in which it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.off = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if not self.off and (name in WAITS or name == FROM_PYTHON or by_mask):
            self.seen.append(f"{name}, by a mask" if by_mask else name)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        before, self.off = self.off, True
        yield
        self.off = before


def watched(monkeypatch: pytest.MonkeyPatch, watch: Any = None, device: Any = None) -> list[int]:
    """Watch the steps of the next run; what makes batches on the host and what saves is no part of them.

    Returns:
        A list that grows by one at each reading of loss and gradient.
    """
    steps, fetch, read, reads = loop.train, transfer.DeviceBatches._fetch, guard.read_later, []

    def within(*args: Any) -> bool:
        with watch or nullcontext(), device() if device else nullcontext():
            return steps(*args)

    def fetched(batches: Any) -> None:
        with watch.looking_away() if watch else nullcontext():
            fetch(batches)

    monkeypatch.setattr(loop, "train", within)
    monkeypatch.setattr(loop, "save", lambda *args: None)
    monkeypatch.setattr(transfer.DeviceBatches, "_fetch", fetched)
    monkeypatch.setattr(guard, "read_later", lambda values: [read(values), reads.append(1)][0])
    return reads


STEPS = 4
QUIET = ("--max_iter", STEPS, "--warm_up", 0, "--avgs_intv", 100, "--eval_intv", 100, "--num_workers", 0)
KINDS_OF_STEP = {
    "plain": (),
    "balanced": ("--class_balancing", "aff", "mit"),
    "margins": ("--margin0", 0.1, "--margin1", 0.1, "--size_average"),
    "squared": ("--loss", "MSELoss"),
    "shares": ("--batch_size", 2, "--accumulate", 2, "--clip", 1.0, "--size_average", "--class_balancing"),
    "mixup": ("--batch_size", 2, "--modifier", "mixup"),
    "crop2x": ("--modifier", "crop2x"),
    "classes": ("--sem", 1.0, "--sem_classes", 2, "--sem_class_weights", 1, 3, "--class_balancing", "sem"),
    "bf16": ("--amp", "bf16"),
    "fp16": ("--amp", "fp16"),
    "SGD": ("--optim", "SGD", "--ema", 0),
}


@pytest.fixture
def lab(lab):
    """With classes, too."""
    module = lab.module.read_text().replace('("img", "seg", "mit")', '("img", "seg", "mit", "sem")')
    lab.module.write_text(module)
    for name in "abc":
        np.save(lab.folder / f"{name}_sem.npy", np.load(lab.folder / f"{name}_mit.npy"))
    return lab


@pytest.mark.parametrize("kind", KINDS_OF_STEP)
def test_a_step_waits_once(lab, monkeypatch, kind):
    watch = Watch()
    reads = watched(monkeypatch, watch)
    lab.train("run", *QUIET, *KINDS_OF_STEP[kind])
    assert watch.seen == []
    assert len(reads) == STEPS


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS_OF_STEP)
def test_a_step_waits_once_on_a_gpu(lab, monkeypatch, kind):
    """torch itself refuses whatever waits there, but for events."""

    @contextmanager
    def strict():
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    reads = watched(monkeypatch, device=strict)
    lab.train_on("cuda", "run", *QUIET, *KINDS_OF_STEP[kind])
    assert len(reads) == STEPS


@pytest.mark.parametrize(
    ("does", "seen"),
    [
        ("batch['input'].sum().item()", "_local_scalar_dense"),
        ("bool((batch['input'] > 2).any())", "_local_scalar_dense"),
        ("batch['input'][batch['input'] > 0.5]", "index, by a mask"),
        ("batch['input'].nonzero()", "nonzero"),
        ("batch['input'].new_tensor([1.0, 2.0])", "lift_fresh"),
    ],
)
def test_what_would_wait_is_seen(lab, monkeypatch, does, seen):
    watch = Watch()
    watched(monkeypatch, watch)
    lab.train("run", *QUIET, "--modifier", lab.mishap("waits", 2, does))
    assert watch.seen == [seen]
