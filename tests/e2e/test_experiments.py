"""The worked examples in experiments/: their files are read, and in small each does what its README says.

Where an example's data is not here, synthetic tissue in the same layout stands in for it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lab import same

from deepem.__main__ import main as deepem
from deepem.cli import config_file, train_parser
from deepem.io.files import imread, imsave
from deepem.tools.stages import Records
from deepem.train import run

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/exp.yaml"))
WITH_ARGUMENTS = ("demo", "fib25")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_and_has_one_screen_of_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    file = f"experiments/{name}/exp.yaml"
    options = train_parser.parse(["--config", file])
    assert options.run.exp_name == name
    assert {setting.path[0] for setting in config_file.read([file])} <= set(config_file.PROGRAMS)
    words = (ROOT / "experiments" / name / "README.md").read_text()
    assert len(words.splitlines()) <= 45
    assert f"deepem run {file}" in words or f"deepem train --config {file}" in words


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_folder_has_its_settings_and_words_and_nothing_else(name: str) -> None:
    listed = subprocess.run(["git", "ls-files", f"experiments/{name}"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = {Path(line).name for line in listed.stdout.splitlines()}
    assert files == {"exp.yaml", "README.md"} | ({"train.args"} if name in WITH_ARGUMENTS else set())


@pytest.mark.parametrize("name", EXAMPLES)
def test_pictures_that_a_readme_shows_are_there_and_small(name: str) -> None:
    folder = ROOT / "experiments" / name
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (folder / "README.md").read_text()):
        assert (folder / target).stat().st_size < 300_000


def test_the_page_lists_every_example() -> None:
    page = (ROOT / "experiments" / "README.md").read_text()
    assert [name for name in EXAMPLES if f"({name}/README.md)" not in page] == []


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_the_argument_file_beside_it_says_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = train_parser.parse(["--config", f"experiments/{name}/exp.yaml"])
    assert files.flat() == train_parser.parse([f"@experiments/{name}/train.args"]).flat()


# In small

TINY = {"max_iter": 2, "eval_iter": 1, "eval_intv": 2, "num_workers": 0, "cpu": True}
NET = {**TINY, "width": [4, 8], "fov": [12, 32, 32]}
SHORT = {"edges": [[0, 0, 3], [0, 3, 0], [3, 0, 0]]}
DETECTOR = {
    **{"fov": [16, 32, 32], "resnet_width": 4, "fpn_width": 8, "box_width": 16, "box_rois": 8, "mask_width": [8]},
    **{"mask_pool": 4, "box_pool": 3, "rpn_pre_nms": [50], "rpn_post_nms": [20], "box_detections": 10},
}


def synthetic(name: str, folder: str, size: str = "16,64,64") -> None:
    assert deepem(["synthesize", "--layout", "synthetic", "--ids", name, "--size", size, "--data_dir", folder]) == 0


def demo(shared: Path) -> dict[str, object]:
    synthetic("t2", "experiments/demo/data")
    return {"train": {**NET, "synth_size": [20, 100, 100]}}


def fib25(shared: Path) -> dict[str, object]:
    for name, part in {"fib25": slice(0, 140), "fib25_tune": slice(100, 114), "fib25_test": slice(120, 134)}.items():
        for key in ("img", "seg"):
            imsave(imread(shared / f"data/fib25/{key}.h5")[part, :80, :80], f"data/{name}/{key}.h5")
    return {"train": {**NET, **SHORT}}


def finetune(shared: Path) -> dict[str, object]:
    small = fib25(shared)
    run.main(["--config", str(ROOT / "experiments/demo/exp.yaml"), *of_words(demo(shared)["train"])])
    shutil.copy("experiments/demo/models/model2.chkpt", "experiments/demo/models/model600.chkpt")
    return small


def of_words(settings: object) -> list[str]:
    """Settings as words of the command line."""
    Path("more.yaml").write_text(yaml.safe_dump({"train": settings}))
    return ["--config", "more.yaml"]


def cremi(shared: Path) -> dict[str, object]:
    assert deepem(["synthesize", "--layout", "cremi_b", "--size", "40,192,192"]) == 0
    return {"train": {**NET, **SHORT}}


def snemi3d(shared: Path) -> dict[str, object]:
    synthetic("v1", "raw", "40,160,160")
    assert deepem(["prepare", "snemi3d", "--files", "img=raw/v1/img.h5", "seg=raw/v1/seg.h5"]) == 0
    synthetic("t2", "raw")
    assert deepem(["prepare", "snemi3d", "--id", "test", "--files", "img=raw/t2/img.h5"]) == 0
    return {"train": {**NET, **SHORT}}


def nuclei(shared: Path) -> dict[str, object]:
    for name in ("1135", "1136"):
        for key in ("img", "seg"):
            part = (slice(20, 60),) * 3
            imsave(imread(shared / f"data/nuclei/{name}/{key}.h5")[part], f"data/nuclei/{name}/{key}.h5")
    return {"train": {**TINY, **DETECTOR}}


def mitochondria(shared: Path) -> dict[str, object]:
    synthetic("t2", "experiments/mitochondria/data")
    return {"train": {**NET, "synth_size": [20, 100, 100]}, "segment": {"min_size": 1}}


def sparse(shared: Path) -> dict[str, object]:
    for name in ("v1", "t2"):
        synthetic(name, "experiments/sparse/data", "16,96,96")
    image, rounds = "experiments/sparse/data/v1/img.h5", Path("experiments/sparse/rounds")
    words = ["--config", str(ROOT / "experiments/sparse/exp.yaml"), "--count", "6", "--size", "4,16,16"]
    assert deepem(["suggest", image, "--predictions", image, "--out", str(rounds), *words]) == 0
    truth = imread("experiments/sparse/data/v1/mit.h5")
    for row in json.loads((rounds / "round1.json").read_text())["cutouts"]:
        shape = imread(rounds / row["id"] / "img.h5").shape
        part = tuple(slice(begin, begin + n) for begin, n in zip(row["corner"], shape, strict=True))
        imsave(truth[part], rounds / row["id"] / "mit.h5")
    return {"train": {**NET, "fov": [4, 16, 16]}}


PREPARED: dict[str, Callable[[Path], dict[str, object]]] = {
    **{"demo": demo, "fib25": fib25, "finetune": finetune, "cremi": cremi, "snemi3d": snemi3d, "nuclei": nuclei},
    **{"mitochondria": mitochondria, "sparse": sparse},
}
"""Example -> makes its data in the working directory and returns the settings that make it small."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PREPARED)
def test_an_example_runs_and_what_it_merged_gives_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path, verb_env: dict[str, str]
) -> None:
    """Every stage of the file in small; then training again from the options that the run has written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", verb_env)
    file = ROOT / "experiments" / name / "exp.yaml"
    Path("small.yaml").write_text(yaml.safe_dump(PREPARED[name](shared)))
    assert deepem(["run", str(file), "small.yaml"]) == 0
    folder = Path("experiments") / name
    stages = {stage.split()[0] for stage in json.loads((folder / "stages.json").read_text())}
    assert stages == {setting.path[0] for setting in config_file.read([str(file)])} - {"suggest"}
    assert Records(folder).path.is_file()
    run.main(["--config", str(folder / "options.yaml"), "--exp_name", "again"])
    states = [torch.load(f"experiments/{n}/models/model2.chkpt", weights_only=True) for n in (name, "again")]
    for key in ("state_dict", "ema", "optimizer"):
        assert same(states[0].get(key, {}), states[1].get(key, {}))


@pytest.mark.slow
def test_the_queue_of_the_example_predicts_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(ROOT / "experiments/scale/exp.yaml")
    Path("small.yaml").write_text(yaml.safe_dump({"train": {**TINY, "synth_size": [16, 80, 80]}}))
    run.main(["--config", file, "small.yaml", "--exp_name", "scale"])
    synthetic("em", "experiments/scale/data", "20,144,144")
    imsave(imread("experiments/scale/data/em/img.h5"), "file://experiments/scale/data/precomputed")
    queue = ["--queue", "fq://experiments/scale/queue"]
    assert deepem(["queue", "plan", "--config", file, "--voxels_per_s", "1e6"]) == 0
    assert deepem(["queue", "enqueue", "--plan", "experiments/scale/plan", *queue]) == 0
    assert deepem(["queue", "work", *queue]) == 0
    assert deepem(["queue", "status", "--plan", "experiments/scale/plan", "--verify"]) == 0
    assert imread("file://experiments/scale/out/affinity").shape == (3, 20, 144, 144)
    run.main(["--config", "experiments/scale/options.yaml", "--exp_name", "again"])
    one, two = (torch.load(f"experiments/{n}/models/model2.chkpt", weights_only=True) for n in ("scale", "again"))
    assert same(one["state_dict"], two["state_dict"])


def test_every_example_is_run_by_one_of_these_tests() -> None:
    assert set(EXAMPLES) == {*PREPARED, "scale"}
