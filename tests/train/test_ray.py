"""Training on a Ray cluster is training: here a cluster of one machine with two CPUs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

SESSION = """
import json, sys
import ray
from deepem.train import run

ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
for words in json.loads(sys.argv[1]):
    code = 0
    try:
        run.main(words)
    except SystemExit as end:
        code = end.code
    sys.stderr.write(f"exit code {code}\\n")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install deepem[ray]")
def test_two_processes_of_a_ray_cluster_train_as_two_elsewhere(lab, root, equal_runs):
    """In one go and in two, with workers of their own; what fails in one of them is the last that is said."""
    more = ("--batch_size", 2, "--num_workers", 1)
    bad = lab.mishap("bad", 2, "os.environ['RANK'] == '1' and int('a bad sample')")
    runs = [
        lab.words("ray", *more, "--max_iter", 2, "--ray", 2),
        lab.words("ray", *more, "--max_iter", 5, "--ray", 2),
        lab.words("bad", *more, "--max_iter", 5, "--ray", 2, "--modifier", bad),
    ]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HOME": str(lab.folder)}
    program = [sys.executable, "-c", SESSION, json.dumps(runs)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=200)
    assert re.findall(r"exit code (\d+)", done.stderr) == ["0", "0", "1"], done.stderr
    last = done.stderr.partition("exit code 1\n")[0].splitlines()[-1]
    assert last == "ValueError: invalid literal for int() with base 10: 'a bad sample'"

    assert lab.together("plain", *more, "--max_iter", 5) == [0, 0]
    equal_runs("plain", "ray", 5)


def test_without_ray_it_is_said_what_to_install(lab, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert lab.fails("run", "--ray", 2) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "run.py: error: --ray: got no package ray, wants pip install deepem[ray]"
    )
    assert not (lab.folder / "experiments").exists()


def test_ray_chooses_the_gpus(lab, capsys):
    assert lab.fails("run", "--ray", 2, "--gpu_ids", 0, 1) == 2
    assert "run.py: error: --gpu_ids: got GPUs by number, wants none of them with --ray" in capsys.readouterr().err
