"""A laboratory: a folder with volumes, modules of its own and runs in it, as users have them outside the repository.

`Lab.with_dataset` has a dataset module and volumes in folders of their own. `Lab.with_network` has a model module too,
small enough for hundreds of runs. `Lab.with_checkpoint` has a run that is trained already.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

CORTEX = '''"""Our cut-outs."""
from pathlib import Path

import numpy as np

data_info = {"a": "cortex, July", "b": "cortex, August", "c": "held out"}


def load_data(data_dir, data_ids=None, **kwargs):
    volumes = {}
    for name in data_ids or data_info:
        folder = Path(data_dir) / name
        volumes[name] = {key: np.load(folder / f"{key}.npy") for key in ("img", "seg", "mit", "msk")}
    return volumes
'''

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

FOV = (4, 16, 16)
OPTIONS = {
    "model": "rsunet",
    "fov": list(FOV),
    "inputsz": list(FOV),
    "outputsz": list(FOV),
    "width": [4, 8],
    "aff": 1.0,
    "mit": 0.5,
    "lr": 0.001,
    "train_ids": ["a"],
}
"""Of the run of `Lab.with_checkpoint`."""

ON_CPU = pytest.param("cpu", id="on_cpu")
ON_GPU = pytest.param("cuda", id="on_gpu", marks=pytest.mark.gpu)
DEVICES = (ON_CPU, ON_GPU)
"""For a test that must hold on every device; where there is no GPU, its twin on the CPU says that it still runs."""

KEPT: list[Any] = []
"""Runs of forked processes, which are never taken apart: what gloo has there may not end by itself."""


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal to the bit: tensors and arrays of one type, dicts in one order."""
    if hasattr(a, "dtype") or hasattr(b, "dtype"):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label volumes have the same objects, whatever their ids, and the same background."""
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return np.array_equal(a == 0, b == 0) and len(pairs) == len(np.unique(a)) == len(np.unique(b))


def ended(child: int) -> int:
    """The exit code of a process, once it has ended; less the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Lab:
    """A lab's folder: `module` is its dataset, `data` its volumes, `cwd` where it works, `base` how it trains."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.folder, self.data, self.cwd, self.monkeypatch = folder, folder / "data", folder, monkeypatch
        self.module: Path
        self.base: list[str] = []
        self.net: Any = None

    @classmethod
    def with_dataset(cls, folder: Path) -> Lab:
        """The module and the volumes a, b, c; it works in a folder beside them."""
        lab = cls(folder)
        lab.module, lab.cwd = folder / "code" / "cortex.py", folder / "work"
        lab.module.parent.mkdir(parents=True)
        lab.cwd.mkdir()
        lab.module.write_text(CORTEX)
        for seed, name in enumerate("abc"):
            lab.blocky(name, seed)
        own = f"--data {lab.module} --data_dir {lab.data} --aff 1 --mit 0.5 --size_average --cpu"
        sizes = "--fov 8,32,32 --width 4 8 --eval_iter 2 --avgs_intv 2 --warm_up 0"
        lab.base = f"{own} {sizes}".split()
        return lab

    @classmethod
    def with_network(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
        """Modules `data.py` and `net.py` in the working directory, and small volumes a, b, c beside them."""
        lab = cls(folder, monkeypatch)
        lab.module = folder / "data.py"
        lab.module.write_text(DATASET)
        (folder / "net.py").write_text(MODEL)
        rng = np.random.default_rng(0)
        for id in "abc":
            seg = rng.integers(0, 4, (4, 6, 6)).repeat(2, 0).repeat(4, 1).repeat(4, 2)
            np.save(folder / f"{id}_seg.npy", seg.astype(np.int32))
            np.save(folder / f"{id}_mit.npy", (seg == 3).astype(np.uint8))
            np.save(folder / f"{id}_img.npy", (seg * 60 + rng.integers(0, 60, seg.shape)).astype(np.uint8))
        own = "--data_dir . --data data.py --model net.py --cpu --aff 1 --mit 0.5 --fov 4,12,12 --amp off"
        often = "--num_workers 0 --eval_iter 3 --eval_intv 4 --imgs_intv 1000 --warm_up 3 --avgs_intv 3"
        lab.base = f"{own} {often} --augment grayscale_warping --grayscale".split()
        return lab

    @classmethod
    def with_checkpoint(cls, folder: Path) -> Lab:
        """The run `exp` with checkpoint 7 of `net`: outputs spread over 0..1, statistics are not the default."""
        import torch

        from deepem.models import rsunet

        lab = cls(folder)
        torch.manual_seed(0)
        heads = {"affinity": (3, *FOV), "mitochondria": (1, *FOV)}
        lab.net = rsunet.create_model(in_spec={"input": (1, *FOV)}, out_spec=heads, width=[4, 8])
        for module in lab.net.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        lab.net.eval()
        lab.save(7, {"options": OPTIONS})
        return lab

    # Volumes

    def blocky(self, name: str, seed: int) -> None:
        """Blocky cells, the image a function of the id so that there is something to learn."""
        rng = np.random.default_rng(seed)
        ids = np.kron(rng.integers(1, 60, (4, 7, 9)), np.ones((3, 7, 6), int)).astype(np.uint32)
        image = (ids * 37 % 120 + 100 * (ids % 4 == 0) + rng.integers(0, 30, ids.shape)).astype(np.uint8)
        volumes = {"img": image, "seg": ids, "mit": (ids % 4 == 0).astype(np.uint8), "msk": np.ones_like(image)}
        for key, array in volumes.items():
            self.array(name, key, array)

    def array(self, name: str, key: str, array: np.ndarray) -> None:
        """Write one array of a volume."""
        (self.data / name).mkdir(parents=True, exist_ok=True)
        np.save(self.data / name / f"{key}.npy", array)

    def image(self, name: str, size: Sequence[int] = (7, 37, 29), **attributes: Any) -> np.ndarray:
        """Write an image to predict, and return it."""
        import h5py

        path = self.data / name / "img.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.random.default_rng(len(name)).integers(0, 256, size, np.uint8)
        with h5py.File(path, "w") as file:
            file["main"] = array
            file["main"].attrs.update(attributes)
        return array

    # Training

    def words(self, name: str | None, *more: object) -> list[str]:
        """The command line of a run; of flags given twice the later one holds."""
        return [*self.base, *([] if name is None else ["--exp_name", name]), *map(str, more)]

    def train(self, name: str | None, *more: object) -> None:
        """Run it, in this process."""
        from deepem.train import run

        run.main(self.words(name, *more))

    def train_on(self, device: str, name: str, *more: object) -> None:
        """Run it on the CPU or on the first GPU."""
        import torch

        before = self.base
        self.base = [word for word in before if word != "--cpu"] + (["--cpu"] if device == "cpu" else [])
        try:
            self.train(name, *more)
        finally:
            self.base = before
            torch.use_deterministic_algorithms(False)

    def fails(self, name: str, *more: object) -> int:
        """Run it and return the exit code it ends with."""
        with pytest.raises(SystemExit) as caught:
            self.train(name, *more)
        return int(caught.value.code or 0)

    def together(self, name: str, *more: object, world: int = 2) -> list[int]:
        """Run it in several processes; their exit codes."""
        return [ended(child) for child in self.ranks(name, *more, world=world)]

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
        from deepem.train.trainer import Trainer

        signal.alarm(100)
        finished, init = False, Trainer.__init__
        Trainer.__init__ = lambda trainer, **args: KEPT.append(trainer) or init(trainer, **args)
        try:
            self.train(name, *more)
            finished = True
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except Exception:  # noqa: BLE001 - it is told, and the exit code says so
            traceback.print_exc()
        os._exit(0 if finished else 1)

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

    def faulty(self, does: str, at: int) -> list[str]:
        """Flags of an augmentation that does something in the training sample of index `at`."""
        path = self.folder / "faulty_recipe.py"
        path.write_text(
            "import os, signal, threading\n\nimport numpy as np\n\nfrom deepem.data.transform import Augment, Compose\n"
            "from deepem.data.worker import generator\n\n\nclass Fault(Augment):\n"
            "    def __init__(self, is_train):\n        self.is_train, self.calls = is_train, 0\n\n"
            "    def prepare(self, spec, rng):\n        self.calls += 1\n"
            f"        if self.is_train and self.calls == {at} + 1:\n            {does}\n"
            "        return spec, lambda sample: sample\n\n\n"
            "def get_augmentation(is_train):\n    return Compose([Fault(is_train)])\n"
        )
        self.base = [word for word in self.base if word != "--grayscale"]
        return ["--augment", str(path)]

    def calm(self) -> None:
        """No more mishaps."""
        self.monkeypatch.delenv("MISHAP")

    # What runs leave behind

    def models(self, name: str) -> Path:
        """Where its checkpoints lie."""
        return self.cwd / "experiments" / name / "models"

    def state(self, name: str, number: int) -> dict[str, Any]:
        """A checkpoint."""
        import torch

        state: dict[str, Any] = torch.load(self.models(name) / f"model{number}.chkpt", weights_only=True)
        return state

    def save(self, number: int, more: Mapping[str, Any]) -> None:
        """Write a checkpoint of the run `exp`: the weights of `net`, and more."""
        from deepem.utils import checkpoint

        path = checkpoint.path_of(self.models("exp"), number)
        checkpoint.write(path, {"iter": number, "state_dict": self.net.state_dict(), "optimizer": {}, **more})

    def rows(self, name: str, phase: str | None = None) -> list[dict[str, Any]]:
        """The rows of its log, less what a clock decides."""
        lines = (self.cwd / "experiments" / name / "logs" / "metrics.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(line).items() if k not in ("it_per_s", "data_wait")} for line in lines]
        return [row for row in rows if phase in (None, row["phase"])]

    # Inference with the run `exp`

    def forward(self, *words: str) -> None:
        """Predict, in this process."""
        self.forward_on("cpu", *words)

    def forward_on(self, device: str, *words: str) -> None:
        """Predict, in this process, on the CPU or on the first GPU."""
        from deepem.test import forward

        forward.main(["--exp_name", "exp", *(["--cpu"] if device == "cpu" else []), *words])

    def output(self, name: str) -> np.ndarray:
        """A file that was predicted."""
        import h5py

        with h5py.File(self.cwd / "experiments/exp/forward" / f"{name}.h5") as file:
            return file["main"][()]

    def files(self) -> list[str]:
        """The names of all files that were predicted."""
        folder = self.cwd / "experiments/exp/forward"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
