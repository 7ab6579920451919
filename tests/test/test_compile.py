"""The network compiled: the same probabilities, and one line where it cannot be compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

COMPILER = shutil.which(os.environ.get("CXX", "g++"))


@pytest.mark.skipif(COMPILER is None, reason="torch.compile on a CPU wants a C++ compiler")
@pytest.mark.parametrize("flags", [[], ["--no_eval"], ["--batch_size", "3", "--test_aug", "0", "15", "--mit"]])
def test_a_compiled_network_gives_what_it_gives_uncompiled(lab, flags):
    lab.image("a")
    run = ["--data_dir", "data", "--test_ids", "a", *flags]
    lab.forward(*run)
    lab.forward(*run, "--compile", "--out_tag", "compiled")
    plain = [name.removesuffix(".h5") for name in lab.files() if not name.endswith("_compiled.h5")]
    assert len(plain) == 2 - ("--mit" in flags)
    for name in plain:
        np.testing.assert_allclose(lab.output(f"{name}_compiled"), lab.output(name), atol=1e-4)


@pytest.mark.skipif(COMPILER is None, reason="torch.compile on a CPU wants a C++ compiler")
def test_compiled_weights_are_those_of_the_checkpoint_though_another_was_compiled_before(lab):
    lab.image("a")
    run = ["--data_dir", "data", "--test_ids", "a", "--aff", "--compile"]
    lab.forward(*run)
    with torch.no_grad():
        for weight in lab.net.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    stored = {"model": "rsunet", "fov": [4, 16, 16], "width": [4, 8], "aff": 1.0, "mit": 0.5}
    lab.save(12, {"options": stored})
    lab.forward(*run)
    lab.forward(*run[:-1], "--out_tag", "plain")
    assert np.abs(lab.output("a_affinity_12") - lab.output("a_affinity_7")).max() > 0.01
    np.testing.assert_allclose(lab.output("a_affinity_12"), lab.output("a_affinity_12_plain"), atol=1e-4)


def test_a_compiler_that_is_not_there_is_one_line(lab, root, tmp_path):
    lab.image("a", (4, 16, 16))
    words = ["--exp_name", "exp", "--cpu", "--data_dir", "data", "--test_ids", "a", "--compile"]
    done = subprocess.run(
        [sys.executable, root / "deepem/test/forward.py", *words],
        env={**os.environ, "CXX": "no_such_compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("forward.py: error: --compile: got ")
    assert "wants a compiler" in line
    assert not lab.files()
