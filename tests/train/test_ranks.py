"""Several processes take the steps that one process takes."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys

import pytest
import torch

from deepem.train import run
from deepem.train.launch import launch

NET = ("--norm", "group", "--optim", "SGD", "--lr", "1e-9", "--batch_size", 4)


def gradient(lab, name):
    state = lab.state(name, 1)["optimizer"]["state"]
    return torch.cat([entry["momentum_buffer"].flatten() for entry in state.values()])


def close(a, b):
    return torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(a.abs().max()))


def rows_agree(lab, one, other):
    for a, b in zip(lab.rows(one), lab.rows(other), strict=True):
        assert a.keys() == b.keys()
        assert all(a[key] == (b[key] if isinstance(b[key], str) else pytest.approx(b[key], rel=1e-5)) for key in a)


@pytest.mark.parametrize("average", [(), ("--size_average", "--accumulate", 2), ("--class_balancing",)])
def test_gradients_and_log_are_those_of_one_process(lab, average):
    more = (*NET, *average, "--eval_intv", 1, "--max_iter", 1)
    lab.train("one", *more)
    assert lab.together("two", *more) == [0, 0]
    assert close(gradient(lab, "one"), gradient(lab, "two"))
    rows_agree(lab, "one", "two")


def test_synchronised_batch_norm_is_that_of_the_whole_batch(lab):
    more = (*NET, "--norm", "batch", "--sync_bn", "--eval_intv", 1, "--max_iter", 1)
    lab.train("one", *more)
    assert lab.together("two", *more) == [0, 0]
    a, b = (lab.state(name, 1)["state_dict"] for name in ("one", "two"))
    assert all(torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-7) for name in a)
    assert close(gradient(lab, "one"), gradient(lab, "two"))
    rows_agree(lab, "one", "two")


@pytest.mark.parametrize("average", [(), ("--size_average",)])
def test_a_head_without_labels_on_one_rank_stops_nobody(lab, average):
    """Odd samples, which are the second rank's, lose the mask of one head."""
    (lab.folder / "half.py").write_text(
        "import os\n"
        "class Modifier:\n"
        "    def __call__(self, batch, rng):\n"
        "        mask = batch['mitochondria_mask'] = batch['mitochondria_mask'].clone()\n"
        "        if 'RANK' in os.environ:\n"
        "            mask *= 1 - int(os.environ['RANK'])\n"
        "        else:\n"
        "            mask[1::2] = 0\n"
        "        return batch\n"
    )
    more = (*NET, *average, "--max_iter", 1, "--modifier", "half.py")
    lab.train("one", *more)
    assert lab.together("two", *more) == [0, 0]
    assert close(gradient(lab, "one"), gradient(lab, "two"))
    rows_agree(lab, "one", "two")


def test_resuming_on_another_number_of_ranks(lab):
    more = ("--norm", "group", "--batch_size", 4, "--ema", 0.9)
    lab.train("one", *more, "--max_iter", 4)
    lab.train("mixed", *more, "--max_iter", 2)
    assert lab.together("mixed", *more, "--max_iter", 3) == [0, 0]
    lab.train("mixed", *more, "--max_iter", 4)
    a, b = lab.state("one", 4)["state_dict"], lab.state("mixed", 4)["state_dict"]
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
    rows_agree(lab, "one", "mixed")


def test_all_ranks_stop_when_one_is_asked_to(lab):
    stop = lab.mishap("stop", 2, "os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGTERM)")
    assert lab.together("run", "--batch_size", 2, "--max_iter", 9, "--modifier", stop) == [85, 85]
    assert lab.state("run", 2)["iter"] == 2


def test_all_ranks_skip_a_step_that_is_nan_on_one(lab):
    nan = lab.mishap("nan", 2, "batch['input'] = batch['input'] + float('nan') * int(os.environ['RANK'])")
    more = ("--batch_size", 2, "--max_iter", 3, "--modifier", nan)
    assert lab.together("run", *more, "--skip_nan", 1) == [0, 0]
    state = lab.state("run", 3)
    assert state["skipped"] == 1
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_a_batch_that_the_ranks_cannot_share_is_refused(lab, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert lab.fails("run", "--batch_size", 3) == 2
    assert "--batch_size: got 3, wants a multiple of 2: 2 processes" in capsys.readouterr().err


def test_nothing_holds_on_to_the_group_that_is_taken_apart(lab, monkeypatch):
    """Else gloo and the interpreter wait for each other now and then, and the run never ends."""
    destroy = torch.distributed.destroy_process_group

    def checked():
        assert not [1 for thing in gc.get_objects() if type(thing) is torch.nn.parallel.DistributedDataParallel]
        destroy()

    monkeypatch.setattr(torch.distributed, "destroy_process_group", checked)
    assert lab.together("run", "--batch_size", 2, "--max_iter", 2) == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["torchrun", "gpu_ids"])
def test_from_the_command_line(lab, root, start):
    program = [str(root / "deepem" / "train" / "run.py")]
    words = lab.words(start, *NET, "--max_iter", 1)
    if start == "torchrun":
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *program]
    else:
        words += ["--gpu_ids", "0", "1"]
    done = subprocess.run([sys.executable, *program, *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved experiments") == 1
    lab.train("one", *NET, "--max_iter", 1)
    assert close(gradient(lab, "one"), gradient(lab, start))


def test_a_gpu_that_is_not_there_starts_nothing(lab, monkeypatch, capsys):
    words = [word for word in lab.words("run", "--gpu_ids", 98, 99) if word != "--cpu"]
    with pytest.raises(SystemExit) as caught:
        run.main(words)
    assert caught.value.code == 2
    assert "--gpu_ids: got 98" in capsys.readouterr().err


@pytest.mark.parametrize(("ending", "code"), [("raise SystemExit(3)", 3), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_a_dead_rank_ends_all(tmp_path, ending, code):
    """The first process waits for ever: only the launcher can end it."""
    program = tmp_path / "program.py"
    program.write_text(f"import os, signal\nif os.environ['RANK'] == '0':\n    signal.pause()\n{ending}\n")
    assert launched(program) == code


@pytest.mark.parametrize(("other", "code"), [("raise SystemExit(3)", 3), ("signal.pause()", 128 + 6)])
def test_a_rank_that_aborts_since_another_failed_does_not_hide_why(tmp_path, monkeypatch, other, code):
    """The first process aborts, as gloo may when a peer is gone; the second one ends, or never does."""
    monkeypatch.setattr("deepem.train.launch.ABORT_S", 20.0 if code == 3 else 0.4)
    program = tmp_path / "program.py"
    program.write_text(f"import os, signal\nif os.environ['RANK'] == '0':\n    os.abort()\n{other}\n")
    assert launched(program) == code


def launched(program):
    """The exit code of two processes, with the handlers of signals as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        return launch(program, [], 2)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
