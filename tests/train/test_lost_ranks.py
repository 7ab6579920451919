"""A process that dies, fails or stops ends those that train with it, and the last word is that of the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from deepem.train import rank_errors
from deepem.utils import checkpoint
from deepem.utils.exit_codes import STOPPED

WORDS = ("--batch_size", 2, "--max_iter", 8, "--chkpt_intv", 1, "--eval_intv", 100, "--rank_timeout", 60)
KILL, STOP = "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGSTOP)"
RAISE = "int('a bad sample')"
LOST = "another rank ended, or did not answer within --rank_timeout"


def mishap_on_rank_1(lab, does):
    """At the 4th batch."""
    return lab.mishap("mishap", 4, f"os.environ.get('RANK') == '1' and {does}")


def goes_on(lab, equal_runs, modifier):
    """The newest checkpoint is that of the last common step, whole, and the run goes on from it."""
    assert checkpoint.newest(lab.models("run"))[0] == 3
    assert not [path for path in lab.models("run").iterdir() if path.suffix == ".part"]
    lab.calm()
    lab.train("run", *WORDS, "--modifier", modifier)
    lab.train("whole", *WORDS, "--modifier", modifier)
    assert lab.state("run", 8)["iter"] == lab.state("whole", 8)["iter"] == 8


def started(lab, root, how, *more):
    """A run of two processes from the command line, and what it wrote on stderr."""
    words = lab.words("run", *WORDS, *more)
    program = [str(root / "deepem" / "train" / "run.py"), *words]
    if how == "torchrun":
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *program]
    else:
        program += ["--gpu_ids", "0", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *program], env=env, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr


@pytest.mark.parametrize("how", ["torchrun", pytest.param("gpu_ids", marks=pytest.mark.slow)])
def test_a_killed_rank_ends_all(lab, root, equal_runs, how):
    kill = mishap_on_rank_1(lab, KILL)
    code, told = started(lab, root, how, "--modifier", kill)
    assert code == {"torchrun": 1, "gpu_ids": 128 + 9}[how]
    assert "SIGKILL" in told
    assert LOST not in told
    goes_on(lab, equal_runs, kill)


@pytest.mark.parametrize("how", ["gpu_ids", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_the_last_word_is_that_of_the_rank_that_failed(lab, root, equal_runs, how):
    bad = mishap_on_rank_1(lab, RAISE)
    code, told = started(lab, root, how, "--modifier", bad)
    assert code == 1
    last = [line for line in told.splitlines() if "Error" in line][-1]
    assert last.endswith("ValueError: invalid literal for int() with base 10: 'a bad sample'")
    assert LOST not in told
    goes_on(lab, equal_runs, bad)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gpu_ids", "torchrun"])
def test_a_stopped_rank_ends_all_after_the_time_out(lab, root, equal_runs, how):
    """Torchrun asks the stopped process to end, and kills it after 30 s."""
    stop = mishap_on_rank_1(lab, STOP)
    code, told = started(lab, root, how, "--modifier", stop, "--rank_timeout", 3)
    assert code == 1
    assert LOST in [line for line in told.splitlines() if "Error" in line][-1]
    goes_on(lab, equal_runs, stop)


@pytest.mark.parametrize("does", [KILL, STOP])
def test_a_rank_that_nobody_ends_says_that_it_lost_another(lab, monkeypatch, capfd, does):
    monkeypatch.setattr(rank_errors, "LOST_S", 0.0)
    bad = mishap_on_rank_1(lab, does)
    first, second = lab.ranks("run", *WORDS, "--modifier", bad, "--rank_timeout", 1)
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 1
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
    assert capfd.readouterr().err.splitlines()[-1] == f"RuntimeError: rank 0: {LOST}"


def test_a_rank_that_is_ended_before_it_notices_the_loss_says_nothing(monkeypatch):
    """It ends with the code of a stop: its launcher has seen first that another died, and asked it to stop."""
    monkeypatch.setenv("RANK", "0")
    lost = RuntimeError("[third_party/gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(SystemExit) as ended, rank_errors.first_cause_speaks(lambda: True):
        raise lost
    assert ended.value.code == STOPPED
