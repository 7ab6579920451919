"""The folder of a run: held by one process, and nobody deletes what another writes."""

from __future__ import annotations

import os
import socket

import pytest
import torch

from deepem.runs.folder import RunFolder
from deepem.utils import checkpoint
from deepem.utils.errors import InputError
from deepem.utils.files import remove_torn, replacing, run_folder


def begun(folder: RunFolder) -> RunFolder:
    folder.resume(0)
    folder.begin(0, {}, [], 0)
    return folder


def test_a_run_that_another_has_overtaken_is_refused(tmp_path):
    """Both looked into the empty folder; the other was done before this one began."""
    late = RunFolder(tmp_path / "run")
    late.resume(0)
    other = begun(RunFolder(tmp_path / "run"))
    other.save(5, {"state_dict": {"a": torch.ones(1)}})
    other.release()
    with pytest.raises(InputError, match=r"checkpoints \[5\] that another run has written just now"):
        late.begin(0, {}, [], 0)
    assert checkpoint.numbers(tmp_path / "run" / "models") == [5]


def test_files_of_processes_that_have_ended_are_removed_and_others_stay(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    host = socket.gethostname()
    gone, parent, elsewhere = (f".a.{where}.part" for where in (f"{host}.{child}", f"{host}.{os.getppid()}", "far.7"))
    for name in (gone, parent, elsewhere, "mine.part"):
        (tmp_path / name).write_text("")
    remove_torn(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {parent, elsewhere, "mine.part"}


def test_what_is_being_replaced_is_known_by_its_process(tmp_path):
    with replacing(tmp_path / "a") as beside:
        beside.write_text("x")
        assert beside.name == f".a.{socket.gethostname()}.{os.getpid()}.part"
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "..", "", "experiments/../x"])
def test_names_of_runs_stay_inside_the_folder(name):
    with pytest.raises(InputError, match="--exp_name: got"):
        run_folder(name)


@pytest.mark.parametrize(
    ("name", "folder"), [("a", "a"), ("a/b", "a/b"), ("experiments/a", "a"), ("a..b", "a..b")],
)  # fmt: skip
def test_names_of_runs(name, folder):
    assert str(run_folder(name)) == f"experiments/{folder}"
