"""A laboratory with a small dataset and a small network, and runs in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

DATASET = """
from pathlib import Path
import numpy as np

data_info = ["a", "b", "c"]
splits = {"train": ["a", "b"], "val": ["c"]}

def load_data(data_dir, data_ids=None, **_):
    return {i: {key: np.load(Path(data_dir) / f"{i}_{key}.npy") for key in ("img", "seg", "mit")} for i in data_ids}
"""

MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, out_spec, norm, dropout):
        super().__init__()
        norms = {"batch": nn.BatchNorm3d(4), "group": nn.GroupNorm(2, 4)}
        self.core = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), norms[norm], nn.ReLU(), nn.Dropout3d(dropout))
        self.out = nn.ModuleDict({name: nn.Conv3d(4, shape[0], 1) for name, shape in out_spec.items()})

    def forward(self, x):
        features = self.core(x)
        return {name: head(features) for name, head in self.out.items()}

def create_model(*, in_spec, out_spec, norm: str = "batch", dropout: float = 0.0):
    return Net(out_spec, norm, dropout)
"""


KEPT: list[Any] = []
"""Runs of forked processes, which are never taken apart: what gloo has there may not end by itself."""


def ended(child: int) -> int:
    """The exit code of a process, once it has ended; less the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Lab:
    """A working directory with a dataset module `data.py`, a model module `net.py`, and runs in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        (folder / "data.py").write_text(DATASET)
        (folder / "net.py").write_text(MODEL)
        rng = np.random.default_rng(0)
        for id in "abc":
            seg = rng.integers(0, 4, (4, 6, 6)).repeat(2, 0).repeat(4, 1).repeat(4, 2)
            np.save(folder / f"{id}_seg.npy", seg.astype(np.int32))
            np.save(folder / f"{id}_mit.npy", (seg == 3).astype(np.uint8))
            np.save(folder / f"{id}_img.npy", (seg * 60 + rng.integers(0, 60, seg.shape)).astype(np.uint8))

    def words(self, name: str, *more: object) -> list[str]:
        """The command line of a run; what is given later on it wins."""
        base = "--data_dir . --data data.py --model net.py --cpu --aff 1 --mit 0.5 --fov 4,12,12 --amp off --exp_name"
        often = "--num_workers 0 --eval_iter 3 --eval_intv 4 --imgs_intv 1000 --warm_up 3 --avgs_intv 3"
        augment = "--augment grayscale_warping --grayscale"
        return [*base.split(), name, *often.split(), *augment.split(), *map(str, more)]

    def train(self, name: str, *more: object) -> None:
        """Run it, in this process."""
        from deepem.train import run

        run.main(self.words(name, *more))

    def ranks(self, name: str, *more: object, world: int = 2) -> list[int]:
        """Start it in several processes that find each other as under torchrun; their ids."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        children = []
        for rank in range(world):
            child = os.fork()
            if child == 0:
                address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ.update(address, RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
                self._as_rank(name, *more)
            children.append(child)
        return children

    def _as_rank(self, name: str, *more: object) -> NoReturn:
        """Run it, in this process, which ends with it."""
        from deepem.train.assemble import Run

        signal.alarm(100)
        finished, init = False, Run.__init__
        Run.__init__ = lambda run, *args: KEPT.append(run) or init(run, *args)
        try:
            self.train(name, *more)
            finished = True
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except Exception:  # noqa: BLE001 - it is told, and the exit code says so
            traceback.print_exc()
        os._exit(0 if finished else 1)

    def together(self, name: str, *more: object, world: int = 2) -> list[int]:
        """Run it in several processes; their exit codes."""
        return [ended(child) for child in self.ranks(name, *more, world=world)]

    def fails(self, name: str, *more: object) -> int:
        """Run it and return the exit code it ends with."""
        with pytest.raises(SystemExit) as caught:
            self.train(name, *more)
        return int(caught.value.code or 0)

    def models(self, name: str) -> Path:
        """Where its checkpoints lie."""
        return self.folder / "experiments" / name / "models"

    def state(self, name: str, number: int) -> dict[str, Any]:
        """A checkpoint."""
        state: dict[str, Any] = torch.load(self.models(name) / f"model{number}.chkpt", weights_only=True)
        return state

    def rows(self, name: str, phase: str | None = None) -> list[dict[str, Any]]:
        """The rows of its log, less what a clock decides."""
        lines = (self.folder / "experiments" / name / "logs" / "metrics.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(line).items() if k not in ("it_per_s", "data_wait")} for line in lines]
        return [row for row in rows if phase in (None, row["phase"])]

    def mishap(self, name: str, at: int, does: str) -> str:
        """A modifier, to be named on the command line, that does something at its n-th batch until all is calm."""
        self.monkeypatch.setenv("MISHAP", name)
        path = self.folder / f"{name}.py"
        body = f"        if self.calls == {at} and 'MISHAP' in os.environ:\n            {does}\n        return batch\n"
        path.write_text(
            "import os, resource, signal, torch\n\nclass Modifier:\n    calls = 0\n\n"
            "    def __call__(self, batch, rng):\n        self.calls += 1\n" + body
        )
        return str(path)

    def calm(self) -> None:
        """No more mishaps."""
        self.monkeypatch.delenv("MISHAP")


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A laboratory of one's own, as the working directory."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a process that is forked off has no others, and would wait for them
    yield Lab(tmp_path, monkeypatch)
    torch.set_num_threads(threads)


@pytest.fixture
def equal_runs(lab: Lab) -> Callable[[str, str, int], None]:
    """Asserts that two runs ended in the same state, and logged the same."""

    def check(one: str, other: str, iteration: int) -> None:
        a, b = lab.state(one, iteration), lab.state(other, iteration)
        for key in ("iter", "state_dict", "optimizer", "averages"):
            assert same(a[key], b[key]), key
        assert lab.rows(one) == lab.rows(other)

    return check
