"""Plug-ins of a user's own in a run: their flags, what they may do, and what their failures come to."""

from __future__ import annotations

import numpy as np
import pytest

IN_PLACE = """
class Modifier:
    def __init__(self, *, strength: float = 0.5, sections: int = 1):
        self.strength, self.sections = strength, sections

    def __call__(self, batch, rng):
        with open("seen", "w") as file:
            file.write(f"{self.strength} {self.sections}")
        batch["affinity_mask"][:, :, : self.sections] = 0
"""

SILENT = """
from deepem.data.transform.base import Augment

class Reader(Augment):
    def prepare(self, spec, rng):
        def apply(sample):
            open("no_such_table.txt")
        return spec, apply

def get_augmentation(is_train):
    return Reader()
"""

FLOATS = """
import numpy as np
from deepem.data.transform.base import Augment

class Power(Augment):
    def prepare(self, spec, rng):
        power = rng.uniform(0.5, 2)
        def apply(sample):
            return sample | {"img": np.power(sample["img"] / 255.0, power)}
        return spec, apply

def get_augmentation(is_train):
    return Power()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_modifier_has_its_flags_and_may_write_into_the_batch(lab, workers):
    """Also into masks that are one value throughout, which travel as that value."""
    (lab.folder / "mine.py").write_text(IN_PLACE)
    plain, masked = ("plain", "--max_iter", 2), ("masked", "--max_iter", 2, "--num_workers", workers)
    lab.train(*plain)
    lab.train(*masked, "--modifier", "mine.py", "--strength", 0.9, "--sections", 4)
    assert (lab.folder / "seen").read_text() == "0.9 4"
    assert all(row["affinity"] > 0 for row in lab.rows("plain", "train"))
    assert all(row.get("affinity", 0) == 0 for row in lab.rows("masked", "train"))


@pytest.mark.parametrize(
    ("flag", "text", "named"),
    [
        ("--augment", "def get_augmentation(is_train):\n    open('no_such_table.txt')\n", "--augment bad.py"),
        (
            "--modifier",
            "class Modifier:\n    def __init__(self):\n        open('no_such_table.txt')\n",
            "--modifier bad.py",
        ),
        ("--augment", SILENT, "--augment (train sample 0 of seed 0)"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_a_plug_in_cannot_read_is_bad_input(lab, capsys, flag, text, named, workers):
    (lab.folder / "bad.py").write_text(text)
    assert lab.fails("run", flag, "bad.py", "--max_iter", 1, "--num_workers", workers) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{named}: got no_such_table.txt: No such file or directory, wants a file that can be read" in line
    assert not (lab.folder / "experiments").exists()


def test_an_augmentation_may_compute_in_floats_of_any_size(lab, equal_runs):
    (lab.folder / "power.py").write_text(FLOATS)
    for name, workers in (("one", 0), ("two", 2)):
        lab.train(name, "--augment", "power.py", "--max_iter", 4, "--batch_size", 2, "--num_workers", workers)
    equal_runs("one", "two", 4)
    assert all(np.isfinite(row["affinity"]) for row in lab.rows("one"))
