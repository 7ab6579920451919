"""A run that is asked to stop saves and goes on later as if nothing had been."""

from __future__ import annotations

import os
import signal

import pytest

from deepem.data import loader
from deepem.train import preempt
from deepem.train.preempt import STOPPED
from deepem.utils import checkpoint


@pytest.mark.parametrize(("name", "at"), [("SIGTERM", 3), ("SIGUSR1", 4), ("SIGHUP", 3)])
def test_a_signal_saves_after_the_step(lab, equal_runs, name, at):
    """At iteration 4 an evaluation is due: it is left to the run that goes on."""
    stop = lab.mishap("stop", at, f"os.kill(os.getpid(), signal.{name})")
    assert lab.fails("run", "--max_iter", 7, "--modifier", stop) == STOPPED == 85
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # nothing changes the exit code any more
    assert checkpoint.numbers(lab.models("run")) == [at]
    lab.calm()
    lab.train("run", "--max_iter", 7, "--modifier", stop)
    lab.train("whole", "--max_iter", 7, "--modifier", stop)
    equal_runs("run", "whole", 7)


def test_a_second_signal_ends_at_once(lab, monkeypatch):
    monkeypatch.setattr(preempt, "SAME_S", 0.0)
    with preempt.Preemption() as preemption:
        preemption.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == STOPPED


def test_a_run_that_saves_is_not_ended_by_a_second_signal(lab, monkeypatch):
    monkeypatch.setattr(preempt, "SAME_S", 0.0)
    with preempt.Preemption() as preemption:
        preemption.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        preemption.leave()
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_under_nohup_goes_on(lab):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with preempt.Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not preemption.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_stop_while_a_batch_is_waited_for_saves_the_steps(lab, monkeypatch):
    """The worker hangs in its third sample; the run notices the request while it waits for that."""
    monkeypatch.setattr(loader, "PATIENCE_S", 0.5)
    monkeypatch.setattr(loader._Pool, "_listen", lambda pool: os.kill(os.getpid(), signal.SIGTERM))
    hang = lab.faulty("threading.Event().wait()", at=2)
    assert lab.fails("run", "--num_workers", 1, "--max_iter", 9, *hang) == STOPPED
    assert checkpoint.numbers(lab.models("run")) == [2]


def test_the_same_request_may_arrive_twice():
    with preempt.Preemption() as preemption:
        preemption.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert preemption.requested


def test_before_the_first_step_a_signal_ends_the_run_at_once(lab, capsys):
    """With the same code: the job is queued again, and nothing was there to be saved."""
    path = lab.folder / "data.py"
    path.write_text(path.read_text() + "\nimport os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    assert lab.fails("run", "--max_iter", 2) == STOPPED
    assert "warning: SIGTERM: ended before the first step" in capsys.readouterr().err
    assert not (lab.folder / "experiments").exists()
