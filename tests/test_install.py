"""What setup.py asks for can be installed on every Python that it promises, from wheels alone."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import setuptools

NO_INDEX = re.compile(r"failed to fetch|error sending request|dns error|failed to lookup|timed out|connection", re.I)


@pytest.fixture(scope="module")
def asked(root: Path) -> dict[str, Any]:
    """The arguments that setup.py gives to setup()."""
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        runpy.run_path(str(root / "setup.py"))
    return given


def without_torch(requirements: list[str]) -> list[str]:
    """The requirements but torch, which comes from an index of its own."""
    return [one for one in requirements if not re.match(r"torch\b", one)]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_extra_resolves(asked: dict[str, Any], version: str, tmp_path: Path) -> None:
    if (uv := shutil.which("uv")) is None:
        pytest.skip("uv is not installed (the extra dev has it)")
    wanted = without_torch([*asked["install_requires"], *chain.from_iterable(asked["extras_require"].values())])
    (tmp_path / "wanted.txt").write_text("\n".join(wanted))
    command = [
        uv,
        "pip",
        "compile",
        "--native-tls",
        "--python-version",
        version,
        "--only-binary",
        ":all:",
        "--no-header",
    ]
    done = subprocess.run([*command, str(tmp_path / "wanted.txt")], capture_output=True, text=True, check=False)
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = set(re.findall(r"^([\w.-]+)==", done.stdout, re.M))
    assert {"cloud-volume", "h5py", "zarr", "tensorstore", "onnx", "ray", "neuroglancer"} <= found
    assert ("waterz" in found) == (version != "3.10")  # it has no wheels there, and only tests use it
    assert not any(name == "torch" or name.startswith("nvidia-") for name in found)


def test_every_optional_package_that_an_error_names_is_in_its_extra(asked: dict[str, Any]) -> None:
    from deepem.io.faults import EXTRAS

    for package, extra in EXTRAS.items():
        assert any(re.match(rf"{package}\b", one) for one in asked["extras_require"][extra]), package
