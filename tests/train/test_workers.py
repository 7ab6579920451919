"""A sample that cannot be made, and a worker that dies or hangs, end the run: the cause and the sample come last."""

from __future__ import annotations

import traceback

import pytest

from deepem.utils import checkpoint
from deepem.utils.exit_codes import BAD_INPUT, STOPPED

RECIPE = """
import os, signal, threading, time
from deepem.data.transform import Augment, Compose, FlipRotate

class Fault(Augment):
    def prepare(self, spec, rng):
        if rng.random() < {probability}:
            self.happens()
        return spec, lambda sample: sample

    def happens(self):
        {does}

def get_augmentation(is_train):
    return Compose([Fault(), FlipRotate()])
"""


@pytest.fixture
def words(lab):
    """Words for a run with an augmentation that does something in some samples."""

    def of(does, *more, probability=0.1):
        (lab.folder / "faulty.py").write_text(RECIPE.format(does=does, probability=probability))
        line = lab.words("run", "--num_workers", 1, "--worker_timeout", 1, "--max_iter", 60, *more)
        return [word for word in line if word != "--grayscale"] + ["--augment", "faulty.py"]

    return of


def screen(words):
    """The traceback that the run ends with, by lines."""
    from deepem.train import run

    with pytest.raises((RuntimeError, ValueError)) as caught:
        run.main(words)
    return "".join(traceback.format_exception(caught.value)).splitlines()


def code_of(words):
    """The exit code of a run."""
    from deepem.train import run

    with pytest.raises(SystemExit) as ended:
        run.main(words)
    return ended.value.code


def test_a_hanging_worker_ends_the_run_and_shows_where_it_hangs(lab, words, capfd):
    """It is worth queuing again, for its steps are saved."""
    assert code_of(words("threading.Event().wait()")) == STOPPED
    told = capfd.readouterr().err.splitlines()
    assert told[-1].startswith("warning: WorkerError: worker 0 hangs: nothing for 1 s in train sample ")
    assert told[-1].endswith(" of seed 0; the steps are saved, and the same command goes on")
    assert any(line.endswith('faulty.py", line 12 in happens') for line in told)
    (saved,) = checkpoint.numbers(lab.models("run"))
    assert lab.state("run", saved)["iter"] == saved > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_made_ends_the_run_with_its_traceback_and_name(words, workers):
    told = screen(words("int('a bad voxel')", "--num_workers", workers))
    assert any(line.endswith('faulty.py", line 12, in happens') for line in told)
    assert "ValueError: invalid literal for int() with base 10: 'a bad voxel'" in told[-2:]
    assert any("in train sample " in line for line in told)  # last, from Python 3.11


def test_a_killed_worker_ends_the_run_and_its_steps_are_saved(lab, equal_runs):
    kill = lab.faulty("os.environ.get('MISHAP') and os.kill(os.getpid(), signal.SIGKILL)", at=5)
    lab.mishap("unused", 0, "pass")
    assert lab.fails("run", "--num_workers", 1, "--max_iter", 7, *kill) == STOPPED
    (saved,) = checkpoint.numbers(lab.models("run"))
    assert 0 < saved <= 5
    lab.calm()
    lab.train("run", "--max_iter", 7, *kill)
    lab.train("whole", "--max_iter", 7, *kill)
    equal_runs("run", "whole", 7)


def test_a_worker_that_always_dies_is_not_queued_for_ever(lab, capsys):
    kill = lab.faulty("os.kill(os.getpid(), signal.SIGKILL)", at=0)
    assert lab.fails("run", "--num_workers", 1, "--max_iter", 7, *kill) == BAD_INPUT
    assert "--num_workers: got WorkerError: worker 0 died in or after train sample 0" in capsys.readouterr().err


def test_a_failure_beside_the_step_keeps_the_steps(lab, equal_runs):
    """A sample that cannot be made in the middle of a run: a bug of a plug-in, with its traceback."""
    bad = lab.faulty("int('x') if 'MISHAP' in os.environ else None", at=4)
    lab.mishap("unused", 0, "pass")
    with pytest.raises(ValueError, match="invalid literal"):
        lab.train("run", "--max_iter", 6, *bad)
    assert checkpoint.numbers(lab.models("run")) == [4]
    lab.calm()
    lab.train("run", "--max_iter", 6, *bad)
    lab.train("whole", "--max_iter", 6, *bad)
    equal_runs("run", "whole", 6)


def test_a_slow_worker_is_left_alone_while_it_begins_samples(words):
    """A batch of six samples takes longer than the time-out, each of them less."""
    from deepem.train import run

    run.main(words("time.sleep(0.4)", "--batch_size", 6, "--max_iter", 1, probability=1.0))
