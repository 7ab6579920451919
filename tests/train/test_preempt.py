"""A run that is asked to stop saves and goes on later as if nothing had been."""

from __future__ import annotations

import os
import signal

import pytest

from deepem.train import preempt
from deepem.train.preempt import STOPPED
from deepem.utils import checkpoint


@pytest.mark.parametrize(("name", "at"), [("SIGTERM", 3), ("SIGUSR1", 4)])
def test_a_signal_saves_after_the_step(lab, equal_runs, name, at):
    """At iteration 4 an evaluation is due: it is left to the run that goes on."""
    stop = lab.mishap("stop", at, f"os.kill(os.getpid(), signal.{name})")
    handler = signal.getsignal(signal.SIGTERM)
    assert lab.fails("run", "--max_iter", 7, "--modifier", stop) == STOPPED == 85
    assert signal.getsignal(signal.SIGTERM) is handler
    assert checkpoint.numbers(lab.models("run")) == [at]
    lab.calm()
    lab.train("run", "--max_iter", 7, "--modifier", stop)
    lab.train("whole", "--max_iter", 7, "--modifier", stop)
    equal_runs("run", "whole", 7)


def test_a_second_signal_ends_at_once(monkeypatch):
    monkeypatch.setattr(preempt, "SAME_S", 0.0)
    child = os.fork()
    if child == 0:
        with preempt.Preemption() as preemption:
            preemption.defer()
            os.kill(os.getpid(), signal.SIGTERM)
            if preemption.requested:
                os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


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
