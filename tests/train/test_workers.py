"""A sample that cannot be made, and a worker that dies or hangs, end the run: the cause and the sample come last."""

from __future__ import annotations

import traceback

import pytest

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


def test_a_hanging_worker_ends_the_run_and_shows_where_it_hangs(words, capfd):
    told = screen(words("threading.Event().wait()"))
    assert "WorkerError: worker 0 hangs: nothing for 1 s in train sample " in told[-1]
    assert told[-1].endswith(" of seed 0")
    stack = capfd.readouterr().err.splitlines()
    assert any(line.endswith('faulty.py", line 12 in happens') for line in stack)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_made_ends_the_run_with_its_traceback_and_name(words, workers):
    told = screen(words("int('a bad voxel')", "--num_workers", workers))
    assert any(line.endswith('faulty.py", line 12, in happens') for line in told)
    assert "ValueError: invalid literal for int() with base 10: 'a bad voxel'" in told[-2:]
    assert any("in train sample " in line for line in told)  # last, from Python 3.11


def test_a_killed_worker_ends_the_run(words):
    told = screen(words("os.kill(os.getpid(), signal.SIGKILL)"))
    assert "WorkerError: worker 0 died in or after train sample " in told[-1]
    assert "SIGKILL" in told[-1]


def test_a_slow_worker_is_left_alone_while_it_begins_samples(words):
    """A batch of six samples takes longer than the time-out, each of them less."""
    from deepem.train import run

    run.main(words("time.sleep(0.4)", "--batch_size", 6, "--max_iter", 1, probability=1.0))
