"""The modules that read files: what they give, and what they say when files are not there."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.cli import plugins
from deepem.data.dataset import fib25
from deepem.data.dataset.flyem import cremi_b
from deepem.data.emio import imread, imsave
from deepem.utils.errors import InputError

SHAPE = (4, 6, 8)


@pytest.fixture
def cremi(tmp_path):
    folder = tmp_path / cremi_b.FOLDER
    rng = np.random.default_rng(0)
    for key in ("img", "seg", "seg_d3_b0", "glia", "msk_train", "msk_val"):
        imsave(rng.integers(0, 2, SHAPE, dtype=np.uint8), folder / f"{key}.h5")
    return tmp_path


def test_cremi_gives_what_is_asked_for_and_there(cremi):
    volume = cremi_b.load_data(cremi, ["cremi_b"], class_keys=("aff", "mit"), labels=("seg", "mit"))["cremi_b"]
    assert set(volume) == {"img", "seg", "msk_train", "msk_val", "loc"}
    assert volume["loc"]
    imsave(np.ones(SHAPE, np.uint8), cremi / cremi_b.FOLDER / "mit.h5")
    assert "mit" in cremi_b.load_data(cremi, labels=("seg", "mit"))["cremi_b"]


def test_cremi_says_which_files_are_missing_and_how_to_get_them(cremi):
    for key in ("img", "msk_val"):
        (cremi / cremi_b.FOLDER / f"{key}.h5").unlink()
    with pytest.raises(InputError) as error:
        cremi_b.load_data(cremi, labels=("seg",))
    for words in ("img.h5, msk_val.h5", "deepem prepare cremi", "deepem synthesize --layout cremi_b", cremi_b.FOLDER):
        assert words in str(error.value)


def test_cremi_tells_where_a_label_would_go():
    assert set(cremi_b.hints) == set(cremi_b.OPTIONAL)
    assert "CREMI does not have" in cremi_b.hints["mit"]
    assert "--aff 1 alone, or mit.h5 of your own" in cremi_b.hints["mit"]
    assert cremi_b.FOLDER in cremi_b.hints["mit"]


def test_cremi_borders_and_glia_mask(cremi):
    def read(key):
        return imread(cremi / cremi_b.FOLDER / f"{key}.h5")

    volume = cremi_b.load_data(cremi, labels=("seg",), cremi_seg="seg_d3_b0", glia_mask=True)["cremi_b"]
    np.testing.assert_array_equal(volume["seg"], read("seg_d3_b0"))
    for key in ("msk_train", "msk_val"):
        np.testing.assert_array_equal(volume[key], read(key) * (read("glia") == 0))
    with pytest.raises(InputError, match="glia_mask"):
        cremi_b.load_data(cremi, class_keys=("glia",), labels=("glia",), glia_mask=True)
    (cremi / cremi_b.FOLDER / "glia.h5").unlink()
    with pytest.raises(InputError, match=r"glia\.h5"):
        cremi_b.load_data(cremi, labels=("seg",), glia_mask=True)


def test_fib25_splits_by_section(tmp_path):
    image = np.broadcast_to(np.arange(140, dtype=np.uint8)[:, None, None], (140, 4, 5))
    imsave(image, tmp_path / "fib25/img.h5")
    imsave(image.astype(np.uint32) + 1, tmp_path / "fib25/seg.h5")
    volumes = fib25.load_data(tmp_path, labels=("seg",))
    assert {id: set(v["img"][:, 0, 0].tolist()) for id, v in volumes.items()} == {
        "all": set(range(140)),
        "train": set(range(100)),
        "val": set(range(100, 140)),
    }
    assert (volumes["val"]["seg"] == volumes["val"]["img"].astype(int) + 1).all()
    assert set(fib25.load_data(tmp_path, ["val"], labels=())["val"]) == {"img"}
    (tmp_path / "fib25/seg.h5").unlink()
    with pytest.raises(InputError, match=r"fib25: got no seg\.h5"):
        fib25.load_data(tmp_path, labels=("seg",))


def test_the_real_fib25_is_what_the_module_says(shared):
    volume = fib25.load_data(shared / "data", ["all"], labels=("seg",))["all"]
    assert volume["img"].shape == volume["seg"].shape == (140, 250, 250)
    assert volume["img"].dtype == np.uint8


LAB = '''"""Two cut-outs of a lab."""

from deepem.data.emio import load_files

data_info = {
    "cut1": {"dir": "fly/cut1", "img": "em.tif", "seg": "neurons.h5", "mit": "mito.npy", "msk": "known.h5"},
    "cut2": {"dir": "fly/cut2", "img": "all.h5:volumes/raw", "seg": "ids.zarr"},
}
splits = {"train": ["cut1"], "val": ["cut2"]}


def load_data(data_dir, data_ids=None, *, class_keys=(), labels=()):
    """Volumes by id."""
    return load_files(data_info, data_dir, data_ids, labels)
'''


def test_a_lab_adds_a_dataset_with_a_table_and_a_call(tmp_path):
    (tmp_path / "lab.py").write_text(LAB)
    for name in ("cut1/em.tif", "cut1/neurons.h5", "cut1/mito.npy", "cut1/known.h5", "cut2/ids.zarr"):
        imsave(np.ones(SHAPE, np.uint8), tmp_path / "fly" / name)
    imsave(np.ones(SHAPE, np.uint8), f"{tmp_path}/fly/cut2/all.h5:volumes/raw")
    module = plugins.load("dataset", str(tmp_path / "lab.py"))
    volumes = module.load_data(tmp_path, ["cut1", "cut2"], labels=("seg", "mit"))
    assert [set(volume) for volume in volumes.values()] == [{"img", "seg", "mit", "msk", "loc"}, {"img", "seg", "loc"}]
    assert len(LAB.splitlines()) <= 15
