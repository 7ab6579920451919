"""Synthetic nuclei: the same from the same id, touching, and near real ones in what can be counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepem.data import emio
from deepem.data.dataset import synthetic_nuclei
from deepem.data.synth.nuclei import make_nuclei

SIZE = (40, 60, 60)


def test_an_id_and_a_size_decide_every_voxel():
    one, again, other = (make_nuclei(name, SIZE) for name in ("n1", "n1", "n2"))
    assert (one["img"].dtype, one["seg"].dtype) == (np.uint16, np.int32)
    assert np.array_equal(one["img"], again["img"])
    assert np.array_equal(one["seg"], again["seg"])
    assert not np.array_equal(one["seg"], other["seg"])


def test_the_knobs_do_what_they_say():
    few, many = (len(np.unique(make_nuclei("n1", (60, 80, 80), density=d)["seg"])) for d in (0.5, 2))
    assert many > 2.5 * few
    flat, strong = (make_nuclei("n1", SIZE, contrast=c) for c in (0.5, 2))
    inside = flat["seg"] > 0
    assert np.array_equal(inside, strong["seg"] > 0)
    ratio = [v["img"][inside].mean() - v["img"][~inside].mean() for v in (flat, strong)]
    assert ratio[1] > 3 * ratio[0]


def test_the_dataset_gives_what_is_asked_for():
    loaded = synthetic_nuclei.load_data("", ["n1", "t2"], labels=("seg", "mit"), synth_size=SIZE)
    assert list(loaded) == ["n1", "t2"]
    assert loaded["n1"].keys() == {"img", "seg"}
    assert loaded["n1"]["img"].dtype == np.float32
    assert 0 <= loaded["n1"]["img"].min() < loaded["n1"]["img"].max() <= 1
    assert synthetic_nuclei.load_data("", ["n1"], synth_size=SIZE)["n1"].keys() == {"img"}


def figures(image, seg):
    """What can be compared: nuclei, their median size, the share of their voxels, contrast, and grain."""
    image, inside = image.astype(np.float64), seg > 0
    voxels = np.unique(seg[inside], return_counts=True)[1]
    dark = np.percentile(image, 1)
    grain = (image - ndimage.gaussian_filter(image, 1))[inside].std()
    return np.array([
        len(voxels), np.median(voxels), inside.mean(),
        (image[inside].mean() - dark) / (image[~inside].mean() - dark), grain / (image[inside].mean() - dark),
    ])  # fmt: skip


def test_they_are_near_real_nuclei_in_what_can_be_counted(shared):
    folder = shared / "data/nuclei"
    if not folder.is_dir():
        pytest.skip("no real volumes beside the checkout")
    real = np.mean(
        [figures(*(emio.imread(folder / n / f"{k}.h5") for k in ("img", "seg"))) for n in ("1135", "1136")], 0
    )
    made = np.mean([figures(*make_nuclei(name, (100, 100, 100)).values()) for name in ("n1", "n2")], 0)
    assert np.allclose(made, real, rtol=0.25), (made.round(3), real.round(3))


def test_some_of_them_touch():
    seg = make_nuclei("n1", (100, 100, 100))["seg"]
    a, b = seg[:, :, :-1], seg[:, :, 1:]
    meeting = {tuple(sorted(pair)) for pair in zip(a[a != b].tolist(), b[a != b].tolist(), strict=True) if all(pair)}
    assert len(meeting) > 5
