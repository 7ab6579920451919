"""Runs on volumes that stay on disk are those on volumes in memory: the same weights, optimiser and log, to the bit."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

LAZY_DATA = """
from pathlib import Path
from deepem.data.emio import load_files

TABLE = {i: {key: f"{i}.h5:{key}" for key in ("img", "seg", "mit", "msk")} | {"loc": True} for i in "abc"}
data_info = list(TABLE)
splits = {"train": ["a", "b"], "val": ["c"]}

def load_data(data_dir, data_ids=None, *, labels=(), lazy=False):
    return load_files(TABLE, data_dir, data_ids, labels, lazy=lazy)
"""


@pytest.fixture
def lazy_lab(lab):
    """The laboratory with its volumes in HDF5, and a module that can leave them there."""
    lab.module.write_text(LAZY_DATA)
    for id in "abc":
        with h5py.File(lab.folder / f"{id}.h5", "w") as file:
            for key in ("img", "seg", "mit"):
                file.create_dataset(key, data=np.load(lab.folder / f"{id}_{key}.npy"), chunks=(3, 5, 7))
            mask = np.random.default_rng(0).random((8, 24, 24)) < 0.4
            file.create_dataset("msk", data=mask.astype(np.uint8), chunks=(8, 8, 8), compression="gzip")
    return lab


@pytest.mark.parametrize(
    ("steps", "cache_mb", "workers"),
    [(8, 0, 2), (8, 1, 0), *[pytest.param(50, mb, n, marks=pytest.mark.slow) for mb in (0, 1) for n in (0, 1, 3)]],
)
def test_a_lazy_run_ends_with_the_weights_of_a_run_in_memory(lazy_lab, equal_runs, capsys, steps, cache_mb, workers):
    lazy_lab.train("memory", "--max_iter", steps)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    lazy_lab.train("lazy", "--max_iter", steps, "--lazy", "--cache_mb", cache_mb, "--num_workers", workers)
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")] == told
    equal_runs("memory", "lazy", steps)
    assert lazy_lab.state("memory", steps)["drawn"] == lazy_lab.state("lazy", steps)["drawn"]


def test_a_run_goes_on_lazily_where_it_was_in_memory_before(lazy_lab, equal_runs):
    lazy_lab.train("whole", "--max_iter", 7)
    lazy_lab.train("parts", "--max_iter", 4)
    lazy_lab.train("parts", "--max_iter", 7, "--lazy", "--num_workers", 2)
    equal_runs("whole", "parts", 7)


def test_a_module_that_reads_into_memory_is_told_of(lab, capsys):
    lab.module.write_text(lab.module.read_text().replace("**_", "labels=()"))
    lab.train("run", "--max_iter", 1, "--lazy")
    assert "warning: --lazy: the load_data of data.py has no parameter lazy" in capsys.readouterr().err
