"""A run that is cut in two is the run that was not: the same weights, optimiser and log, to the bit."""

from __future__ import annotations

import json
import os
import resource
import signal

import pytest
import torch

import deepem
from deepem.utils import checkpoint

EVERY_2 = ("--chkpt_intv", 2)


@pytest.mark.parametrize(
    ("workers", "more"),
    [
        (0, ()),
        (2, ("--norm", "group", "--dropout", 0.3)),
        pytest.param(4, ("--dropout", 0.3, "--optim", "SGD"), marks=pytest.mark.slow),
    ],
)
def test_resuming_changes_nothing(lab, equal_runs, workers, more):
    lab.train("whole", "--max_iter", 7, *more)
    lab.train("parts", "--max_iter", 4, *more)
    lab.train("parts", "--max_iter", 5, "--num_workers", workers, *more)
    lab.train("parts", "--max_iter", 7, "--num_workers", workers, *more)
    equal_runs("whole", "parts", 7)
    assert lab.state("whole", 7)["drawn"] == lab.state("parts", 7)["drawn"]  # and nothing is drawn again for it
    assert [row["iter"] for row in lab.rows("whole", "train")] == [1, 2, 3, 6]
    assert [row["iter"] for row in lab.rows("whole", "test")] == [4]


def test_nothing_happens_to_a_run_that_is_complete(lab):
    lab.train("run", "--max_iter", 3)
    before = {path: path.read_bytes() for path in lab.models("run").iterdir()}
    lab.train("run", "--max_iter", 3)
    assert {path: path.read_bytes() for path in lab.models("run").iterdir()} == before


def test_a_killed_run_goes_on_from_its_last_checkpoint(lab, equal_runs):
    kill = lab.mishap("kill", 6, "os.kill(os.getpid(), signal.SIGKILL)")
    child = os.fork()
    if child == 0:
        try:
            lab.train("run", *EVERY_2, "--max_iter", 8, "--num_workers", 1, "--modifier", kill)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert checkpoint.numbers(lab.models("run")) == [2, 4]
    lab.calm()
    lab.train("run", *EVERY_2, "--max_iter", 8, "--modifier", kill)
    lab.train("whole", *EVERY_2, "--max_iter", 8, "--modifier", kill)
    equal_runs("run", "whole", 8)


def test_a_truncated_checkpoint_is_passed_over(lab, equal_runs, capsys):
    lab.train("whole", *EVERY_2, "--max_iter", 6)
    lab.train("run", *EVERY_2, "--max_iter", 4)
    newest = lab.models("run") / "model4.chkpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    lab.train("run", *EVERY_2, "--max_iter", 6)
    assert "warning: passed over: " in capsys.readouterr().err
    equal_runs("whole", "run", 6)
    aside = lab.models("run") / "after2" / "model4.chkpt"
    assert aside.is_file()


def test_a_full_disk_leaves_the_checkpoints_whole(lab, equal_runs, capsys):
    lab.train("whole", *EVERY_2, "--max_iter", 6)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = lab.mishap("full", 4, f"resource.setrlimit(resource.RLIMIT_FSIZE, (6000, {limits[1]}))")
    try:
        code = lab.fails("run", *EVERY_2, "--max_iter", 6, "--modifier", full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert lines[-1].startswith("run.py: error: experiments/run/models/model4.chkpt: got a disk that cannot take it")
    assert os.listdir(lab.models("run")) == ["model2.chkpt"]
    lab.calm()
    lab.train("run", *EVERY_2, "--max_iter", 6, "--modifier", full)
    equal_runs("whole", "run", 6)


def test_a_checkpoint_of_the_public_program_is_gone_on_from(lab, capsys):
    """It holds iter, state_dict and optimizer, without options; a bare state dict is for --pretrain."""
    lab.train("ours", "--max_iter", 2)
    state = lab.state("ours", 2)
    for group in state["optimizer"]["param_groups"]:
        del group["scale"], group["fused"]
    checkpoint.write(lab.models("public") / "model2.chkpt", {k: state[k] for k in ("iter", "state_dict", "optimizer")})
    lab.train("public", "--max_iter", 3)
    lab.train("ours", "--max_iter", 3)
    a, b = lab.state("ours", 3)["state_dict"], lab.state("public", 3)["state_dict"]
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    checkpoint.write(lab.models("bare") / "model2.chkpt", state["state_dict"])
    assert lab.fails("bare", "--max_iter", 3) == 2
    assert "got a checkpoint without iter and optimizer, wants a whole one, or --pretrain" in capsys.readouterr().err


def test_a_folder_that_is_a_file_is_bad_input(lab, capsys):
    (lab.folder / "experiments").mkdir()
    (lab.folder / "experiments" / "run").write_text("a file")
    assert lab.fails("run", "--max_iter", 1) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("run.py: error: experiments/run/models: got Not a directory, wants a folder")
    (lab.folder / "experiments" / "other").mkdir()
    (lab.folder / "experiments" / "other" / "logs").write_text("a file")
    assert lab.fails("other", "--max_iter", 1) == 2
    assert "experiments/other/logs: got File exists, wants a folder" in capsys.readouterr().err


def test_a_change_that_is_meant_is_written_down(lab):
    lab.train("run", "--max_iter", 2)
    lab.train("run", "--max_iter", 4, "--lr", 0.01, "--freeze", "core", "--change", "lr", "freeze")
    text = (lab.folder / "experiments" / "run" / "logs" / "history.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(row["iter"], row["change"]) for row in rows] == [
        (2, "--freeze was None, is ['core']"),
        (2, "--lr was 0.001, is 0.01"),
    ]


def test_moments_stay_with_their_parameters_when_others_are_frozen(lab):
    lab.train("run", "--max_iter", 3)
    before = lab.state("run", 3)["optimizer"]["state"]
    lab.train("run", "--max_iter", 4, "--freeze", "core.0", "--change", "freeze")
    frozen = lab.state("run", 4)["optimizer"]["state"]
    assert len(before) - len(frozen) == 2
    assert all(entry["step"] == 4 for entry in frozen.values())
    lab.train("run", "--max_iter", 5, "--change", "freeze")
    steps = [float(entry["step"]) for entry in lab.state("run", 5)["optimizer"]["state"].values()]
    assert sorted(steps) == [1.0] * 2 + [5.0] * (len(before) - 2)


def test_a_checkpoint_says_what_made_it(lab):
    lab.train("run", "--max_iter", 1, "--seed", 7)
    made = lab.state("run", 1)["provenance"]
    assert made["seed"] == 7
    assert made["version"] == deepem.__version__
    assert made.keys() == {"version", "commit", "changed", "torch", "python", "host", "time", "command", "seed"}


def test_members_of_a_superset_are_told_apart_in_the_log(lab):
    text = lab.module.read_text().replace("return {i:", "found = {i:")
    lab.module.write_text(text + "    return {'pair': found} if data_ids == ['pair'] else found\n")
    text = lab.module.read_text().replace('"c"]', '"c", "pair"]').replace("in data_ids}", "in 'ab'}")
    lab.module.write_text(text)
    lab.train("run", "--train_ids", "pair", "--val_ids", "pair", "--max_iter", 24, "--eval_intv", 99)
    row = lab.rows("run", "train")[-1]
    assert row["drawn/pair"] == 1
    assert row["drawn/pair/a"] + row["drawn/pair/b"] == 1
    assert min(row["drawn/pair/a"], row["drawn/pair/b"]) > 0
