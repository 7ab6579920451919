"""Tables of files, as dataset modules have them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from deepem.data import emio
from deepem.data.emio import imsave
from deepem.utils.errors import InputError

VOLUME = np.arange(3 * 5 * 7, dtype=np.int32).reshape(3, 5, 7)
TABLE = {
    "a": {"dir": "cut/a", "img": "em.tif", "seg": "seg.h5", "mit": "mito.npy", "mit_msk": "known.npy", "msk": "m.h5"},
    "b": {"img": "all.h5:volumes/raw", "seg": "all.h5:volumes/ids", "loc": True},
}


@pytest.fixture
def files(tmp_path):
    for name in ("cut/a/em.tif", "cut/a/seg.h5", "cut/a/mito.npy", "cut/a/known.npy", "cut/a/m.h5"):
        imsave(VOLUME + len(name), tmp_path / name)
    with h5py.File(tmp_path / "all.h5", "w") as top:
        top["volumes/raw"], top["volumes/ids"] = VOLUME, VOLUME * 2
    return tmp_path


def test_a_table_of_files_gives_what_is_wanted(files):
    volumes = emio.load_files(TABLE, files, labels=["seg"])
    assert {id: set(volume) for id, volume in volumes.items()} == {
        "a": {"img", "seg", "msk", "loc"},
        "b": {"img", "seg", "loc"},
    }
    np.testing.assert_array_equal(volumes["a"]["seg"], VOLUME + len("cut/a/seg.h5"))
    np.testing.assert_array_equal(volumes["b"]["seg"], VOLUME * 2)
    assert [volume["loc"] for volume in volumes.values()] == [False, True]
    assert set(emio.load_files(TABLE, files, ["a"], ["mit"])["a"]) == {"img", "mit", "mit_msk", "msk", "loc"}


def test_files_that_must_be_there_are_named(files):
    for name in ("em.tif", "mito.npy"):
        (files / "cut/a" / name).unlink()
    with pytest.raises(InputError, match=r"cut/a: got no em\.tif, mito\.npy, wants an email to the lab"):
        emio.load_files(TABLE, files, ["a"], ["mit", "seg"], remedy="an email to the lab")
    imsave(VOLUME, files / "cut/a/em.tif")
    assert "mit" not in emio.load_files(TABLE, files, ["a"], ["mit", "seg"], optional=["mit"])["a"]
