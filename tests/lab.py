"""A lab's own dataset: a short module and .npy volumes, outside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MODULE = '''"""Our cut-outs."""
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


class Lab:
    """A lab's folder: `module` is its dataset, `data` its volumes, `cwd` where it works."""

    def __init__(self, folder: Path) -> None:
        self.module, self.data, self.cwd = folder / "code" / "cortex.py", folder / "data", folder / "work"
        self.module.parent.mkdir(parents=True)
        self.cwd.mkdir()
        self.module.write_text(MODULE)
        for seed, name in enumerate("abc"):
            self.write(name, seed)

    def write(self, name: str, seed: int) -> None:
        """Blocky cells, the image a function of the id so that there is something to learn."""
        rng = np.random.default_rng(seed)
        ids = np.kron(rng.integers(1, 60, (4, 7, 9)), np.ones((3, 7, 6), int)).astype(np.uint32)
        image = (ids * 37 % 120 + 100 * (ids % 4 == 0) + rng.integers(0, 30, ids.shape)).astype(np.uint8)
        volumes = {"img": image, "seg": ids, "mit": (ids % 4 == 0).astype(np.uint8), "msk": np.ones_like(image)}
        for key, array in volumes.items():
            self.save(name, key, array)

    def save(self, name: str, key: str, array: np.ndarray) -> None:
        """Write one array of a volume."""
        (self.data / name).mkdir(parents=True, exist_ok=True)
        np.save(self.data / name / f"{key}.npy", array)

    def words(self, *more: object) -> list[str]:
        """A command line that trains on these volumes."""
        own = f"--data {self.module} --data_dir {self.data} --aff 1 --mit 0.5 --size_average --cpu"
        sizes = "--fov 8,32,32 --width 4 8 --eval_iter 2 --avgs_intv 2 --warm_up 0"
        return [*own.split(), *sizes.split(), *map(str, more)]
