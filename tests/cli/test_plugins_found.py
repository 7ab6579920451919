"""Plug-ins: found by three kinds of name, told apart when they fail, asked for their flags without being imported."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from deepem.cli import plugins, signatures
from deepem.utils import byfile
from deepem.utils.errors import InputError

DATASET = """
from typing import Literal

data_info = ["a"]

def load_data(data_dir, data_ids=None, *, class_keys=(), labels=(), blur: int = 3, how: Literal["x", "y"] = "x"):
    '''Volumes.

    Args:
        blur: how much
            to blur
    '''
    return {}

class Thing:
    pass
"""


@pytest.fixture
def plug_in(tmp_path: Path) -> Path:
    path = tmp_path / "my dataset.py"
    path.write_text(DATASET)
    return path


@pytest.mark.parametrize(
    "name", ["rsunet", "deepem.models.rsunet", "deepem/models/rsunet.py", "/old/DeepEM/deepem/models/rsunet.py"]
)
def test_short_dotted_and_public_paths_name_one_module(name: str) -> None:
    assert plugins.load("model", name).__name__ == "deepem.models.rsunet"


def test_short_names_of_datasets_may_have_dots() -> None:
    assert plugins.load("dataset", "flyem.cremi_b").__name__ == "deepem.data.dataset.flyem.cremi_b"


@pytest.mark.parametrize(
    "name", ["aff_mit", "deepem.data.sampler.pinky_basil.aff", "/home/x/DeepEM/deepem/data/sampler/flyem/default.py"]
)
def test_public_sampler_names_mean_basic(name: str) -> None:
    assert plugins.load("sampler", name).__name__ == "deepem.data.sampler.basic"


@pytest.mark.parametrize("more", ["", "--help"])
def test_a_dotted_path_may_start_in_the_working_directory(root: Path, tmp_path: Path, more: str) -> None:
    """Of a program run as a file, which has the repository first on its path and not the working directory."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "cortex.py").write_text(DATASET)
    words = ["--data", "mylab.cortex", "--aff", "1", "--blur", "x", *more.split()]
    command = [sys.executable, str(root / "deepem" / "train" / "run.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if more:
        assert "--blur" in done.stdout
    else:
        assert done.stderr == "run.py: error: --blur: got x, wants a whole number\n"  # the module is found


@pytest.mark.parametrize("name", [".", "..", ".cortex", "cortex.", "flyem..cremi_b", "./"])
def test_dots_alone_name_no_module(name: str) -> None:
    for locate in (plugins.load, signatures.flags_unloaded):
        with pytest.raises(InputError, match=r"got no such module, wants one of .*synthetic"):
            locate("dataset", name)


def test_a_misspelt_sampler_is_an_error_that_lists_siblings() -> None:
    with pytest.raises(InputError, match=r"--sampler basik: got no such module, wants one of basic, or a file"):
        plugins.load("sampler", "basik")


def test_a_file_can_be_pickled_into_a_process_that_knows_only_the_package(plug_in: Path) -> None:
    thing = plugins.load("dataset", str(plug_in)).Thing()
    code = "import pickle, sys; print(type(pickle.load(sys.stdin.buffer)).__name__)"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(thing), capture_output=True, check=True)
    assert done.stdout.split() == [b"Thing"]


def test_a_file_of_this_package_is_not_imported_twice() -> None:
    assert plugins.load("model", str(plugins.ROOT / "models" / "rsunet.py")) is plugins.load("model", "rsunet")


def test_a_module_without_a_function_is_told_its_signature(plug_in: Path) -> None:
    plug_in.write_text("data_info = {}")
    with pytest.raises(InputError, match=r"got a module without load_data, wants load_data\(data_dir, data_ids=None"):
        plugins.load("dataset", str(plug_in))


def test_a_module_that_fails_inside_keeps_its_exception_but_a_missing_file_is_bad_input(plug_in: Path) -> None:
    plug_in.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        plugins.load("dataset", str(plug_in))
    plug_in.with_name("b.py").write_text("open('nowhere/at/all')")
    with pytest.raises(InputError, match="nowhere/at/all"):
        plugins.load("dataset", str(plug_in.with_name("b.py")))


def test_flags_are_the_keyword_only_parameters(plug_in: Path) -> None:
    loaded = signatures.flags("dataset", plugins.load("dataset", str(plug_in)))
    assert [(flag.name, flag.default, flag.help) for flag in loaded] == [
        ("blur", 3, "how much to blur"),
        ("how", "x", ""),
    ]
    assert signatures.flags_unloaded("dataset", str(plug_in)) == loaded


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_flags_read_from_the_source_are_those_of_the_module(kind: str) -> None:
    for name in plugins.siblings(kind):
        assert signatures.flags_unloaded(kind, name) == signatures.flags(kind, plugins.load(kind, name)), name


def test_the_import_name_holds_the_path(plug_in: Path) -> None:
    above, _, name = byfile.import_name(plug_in).rpartition(".")
    assert bytes.fromhex(above.rpartition(".")[2]).decode() == str(plug_in.parent)
    assert bytes.fromhex(name.removeprefix(byfile.CODED)).decode() == str(plug_in)  # "my dataset" is no name
    assert byfile.import_name(plug_in.with_name("mine.py")) == f"{above}.mine"


@pytest.mark.parametrize("line", ["from helpers_beside import IDS", "from .helpers_beside import IDS"])
@pytest.mark.parametrize("name", ["mine.py", "no name.py"])
def test_a_file_may_import_what_lies_beside_it(tmp_path: Path, monkeypatch, line: str, name: str) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("helpers_beside", None)
    (tmp_path / "helpers_beside.py").write_text("IDS = ['a', 'b']\n")
    (tmp_path / name).write_text(f"{line}\ndata_info = IDS\ndef load_data(data_dir, data_ids=None): ...\n")
    assert plugins.load("dataset", str(tmp_path / name)).data_info == ["a", "b"]


def test_a_path_that_is_no_text_names_a_module_too(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "d.py").write_text("data_info = ['a']\ndef load_data(data_dir, data_ids=None): ...\n")
    assert plugins.load("dataset", str(folder / "d.py")).data_info == ["a"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import dataprovider3.emio as emio", "deepem.data.provider, and deepem.data.emio for dataprovider3.emio"),
        ("from augmentor import *", "deepem.data.transform"),
        ("import emvision", "deepem.models.emvision"),
    ],
)
def test_a_module_of_the_public_code_is_told_what_to_import(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "old.py").write_text(f"{line}\ndata_info = ['a']\ndef load_data(*a): ...\n")
    with pytest.raises(InputError, match=f"of the public DeepEM, wants {told}; `deepem help migrate`"):
        plugins.load("dataset", str(tmp_path / "old.py"))


def test_a_module_may_not_end_the_program(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(InputError, match=r"ends\.py: got sys\.exit\(0\), wants a result"):
        plugins.load("dataset", str(tmp_path / "ends.py"))


@pytest.mark.parametrize(
    "name", ["cremi_b", "flyem.cremi_b", "deepem.data.dataset.flyem.cremi_b", "my/cremi_b.py", "cremi_b.py"]
)
def test_the_short_name_is_the_last_part(name: str) -> None:
    assert plugins.short_name(name) == "cremi_b"
