"""Synthetic volumes on disk are those made in memory, in the layout of the module that reads them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from deepem.data.dataset.flyem import cremi_b
from deepem.data.emio import imread, imsave
from deepem.data.synth.volume import make_volume
from deepem.tools.synthesize import main


@pytest.fixture
def make(root, tmp_path):
    def run(*words):
        # From another folder, as a file, and without deepem on the path: as in a bare clone.
        return subprocess.run(
            [sys.executable, root / "deepem", "synthesize", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": ""},
        )

    return run


def test_layout_synthetic_holds_the_voxels_of_the_module(make, tmp_path):
    done = make("--ids", "t1", "v2", "--size", "6,40,48", "--data_dir", "D")
    assert done.returncode == 0, done.stderr
    for word in ("t1", "v2"):
        for key, array in make_volume(word, (6, 40, 48)).items():
            np.testing.assert_array_equal(imread(tmp_path / "D" / word / f"{key}.h5"), array)


def test_layout_cremi_b_is_read_by_the_module(make, tmp_path):
    done = make("--layout", "cremi_b", "--size", "12,64,64")
    assert done.returncode == 0, done.stderr
    labels = ("seg", *cremi_b.OPTIONAL)
    volume = cremi_b.load_data(tmp_path / "data", labels=labels, cremi_seg="seg_d3_b0")["cremi_b"]
    assert set(volume) >= {"img", "msk_train", "msk_val", *labels} - {"bdr"}
    assert volume["msk_train"].any()
    assert volume["msk_val"].any()
    assert not (volume["msk_train"] & volume["msk_val"]).any()


def test_it_may_be_repeated_but_spares_real_volumes(make, tmp_path):
    words = ("--ids", "t1", "--size", "4,20,20", "--data_dir", "D")
    assert make(*words).returncode == 0
    assert make(*words).returncode == 0
    real = np.zeros((4, 20, 20), np.uint8)
    imsave(real, tmp_path / "D/t2/img.h5")
    refused = make("--ids", "t2", *words[2:])
    assert refused.returncode == 2
    assert refused.stderr.startswith("deepem synthesize: error: D/t2: got a folder that has img.h5, wants")
    np.testing.assert_array_equal(imread(tmp_path / "D/t2/img.h5"), real)
    assert [file.name for file in (tmp_path / "D/t2").iterdir()] == ["img.h5"]


@pytest.mark.parametrize("word", ["../esc", "a/../../esc", "{}/esc", ".", ""])
def test_an_id_stays_inside_the_folder(make, tmp_path, word):
    word = word.format(tmp_path)
    done = make("--ids", "t1", word, "--size", "4,20,20", "--data_dir", "D/E")
    assert done.returncode == 2
    assert done.stderr == f"deepem synthesize: error: --ids: got {word}, wants the name of a folder inside --data_dir\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["", "/a"])
def test_a_file_as_the_folder_is_one_line(make, tmp_path, below):
    (tmp_path / "file").write_text("hi")
    done = make("--data_dir", f"file{below}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"deepem synthesize: error: --data_dir: got file{below}, wants a folder: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("--size", "4,4"), ("--size", "1,9,9"), ("--layout", "cremi_b", "--ids", "a")])
def test_bad_words_are_one_line(make, words):
    done = make(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"deepem synthesize: error: {words[-2]}: got ")
    assert done.stderr.count("\n") == 1


def test_a_size_that_looks_like_a_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--size", "-5,9,9"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "deepem synthesize: error: --size: got nothing, wants one value\n"
