"""A synthetic volume is the same for everyone, holds every label where it belongs, and looks like tissue."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from deepem import tasks
from deepem.data.dataset import synthetic
from deepem.data.emio import imread
from deepem.data.synth.fields import depth
from deepem.data.synth.volume import make_volume
from deepem.utils.errors import InputError

LABELS = ("seg", "syn", "psd", "mit", "mye", "fld", "blv", "glia")


@pytest.fixture(scope="module")
def volume():
    return make_volume("v1", (16, 256, 288))


def test_only_what_is_asked_for_is_given():
    volumes = synthetic.load_data("", ["v1", "t2"], labels=("seg", "mit"), synth_size=(3, 20, 30))
    assert list(volumes) == ["v1", "t2"]
    assert all(list(volume) == ["img", "seg", "mit"] for volume in volumes.values())
    assert all(array.shape == (3, 20, 30) for volume in volumes.values() for array in volume.values())
    assert (volumes["v1"]["img"] != volumes["t2"]["img"]).any()


def test_default_ids_are_known_and_apart():
    assert set(synthetic.splits["train"]) | set(synthetic.splits["val"]) <= set(synthetic.data_info)
    assert not set(synthetic.splits["train"]) & set(synthetic.splits["val"])


def test_every_task_finds_its_label():
    chosen = tasks.choose({task.flag for task in tasks.TASKS} - {"psd", "sem"}, edges=[(0, 0, 5)])
    made = set(make_volume("v1", (2, 16, 16)))
    assert all(set(task.sources) & made for task in chosen)
    assert "psd" in made


def test_a_size_without_voxels_is_refused():
    with pytest.raises(InputError, match="synth_size: got 4,0,4"):
        synthetic.load_data("", ["v1"], synth_size=(4, 0, 4))


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 40, 40), (5, 7, 130), (40, 16, 16), (3, 33, 65)])
def test_any_size_goes(size):
    volume = make_volume("t1", size)
    assert all(array.shape == size for array in volume.values())
    assert volume["seg"].min() >= 0


def test_the_same_id_gives_the_same_voxels_in_another_process():
    code = (
        "import zlib; from deepem.data.synth.volume import make_volume;"
        "print({k: zlib.crc32(a.tobytes()) for k, a in make_volume('v1', (6, 64, 80)).items()})"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_every_label_is_there_in_its_place(volume):
    assert volume["img"].dtype == np.uint8
    assert volume["seg"].dtype == np.int32
    for label in LABELS:
        assert volume[label].any(), label
        assert label == "seg" or set(np.unique(volume[label])) == ({0, 1, 2} if label in ("syn", "blv") else {0, 1})
    cell = volume["seg"] > 0
    assert cell[volume["mit"] > 0].all()
    assert cell[volume["glia"] > 0].all()
    assert cell[volume["blv"] == 2].all()
    assert len(np.unique(volume["seg"][volume["blv"] == 1])) == 1
    assert (~cell == (volume["mye"] > 0)).all()
    assert (volume["syn"][volume["psd"] > 0] == 2).all()


def test_the_two_sides_of_a_synapse_are_two_cells(volume):
    synapses, count = ndimage.label(volume["syn"] > 0, np.ones((3, 3, 3)))
    assert count >= 2
    for n in range(1, count + 1):
        here = synapses == n
        pre = set(volume["seg"][here & (volume["syn"] == 1)])
        post = set(volume["seg"][here & (volume["syn"] == 2)])
        assert pre
        assert post
        assert not pre & post


def test_cells_run_on_from_section_to_section(volume):
    seg = volume["seg"]
    assert (seg[1:] == seg[:-1]).mean() > 0.75
    assert len(np.unique(seg)) > 40


def test_organelles_and_membranes_look_as_they_should(volume):
    grey = volume["img"].astype(float)
    deep = np.stack([depth(section) for section in volume["seg"]])
    plain = (deep > 5) & (volume["seg"] > 0) & (volume["mit"] == 0) & (volume["fld"] == 0)
    inside = grey[plain].mean()
    for dark in (deep < 1, volume["mit"] > 0, volume["mye"] > 0, volume["fld"] > 0, volume["psd"] > 0):
        assert grey[dark].mean() < inside - 15
    assert grey[volume["blv"] == 1].mean() > inside + 30


def test_borders_and_grey_values_are_near_those_of_real_tissue(shared, root, volume):
    spec = importlib.util.spec_from_file_location("versus", root / "scripts/benchmark/synthetic_vs_real.py")
    versus = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(versus)
    real = versus.measure(*(imread(shared / "data/fib25" / f"{key}.h5") for key in ("img", "seg")))
    made = versus.measure(volume["img"], volume["seg"])
    for figure in ("contrast", "membrane", "noise"):
        assert made[figure] == pytest.approx(real[figure], rel=0.5), figure
    assert made["threshold AUC"] == pytest.approx(real["threshold AUC"], abs=0.1)
    np.testing.assert_allclose(made["quantiles"][1:6], real["quantiles"][1:6], atol=20)
