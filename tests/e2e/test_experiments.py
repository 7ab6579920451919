"""The worked examples in experiments/: their files are read, and say what the argument files say."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import same

from deepem.cli import config_file, train_parser
from deepem.tools import runner

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/exp.yaml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_and_has_one_screen_of_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    file = f"experiments/{name}/exp.yaml"
    options = train_parser.parse(["--config", file])
    assert options.run.exp_name == name
    assert {setting.path[0] for setting in config_file.read([file])} <= {*runner.STAGES}
    words = (ROOT / "experiments" / name / "README.md").read_text()
    assert len(words.splitlines()) <= 40
    assert f"deepem run {file}" in words


@pytest.mark.parametrize("name", ["demo", "fib25"])
def test_the_argument_file_beside_it_says_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = train_parser.parse(["--config", f"experiments/{name}/exp.yaml"])
    assert files.flat() == train_parser.parse([f"@experiments/{name}/train.args"]).flat()


@pytest.mark.slow
def test_an_example_merged_and_run_again_gives_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from deepem.train import run

    monkeypatch.chdir(tmp_path)
    small = ["--synth_size", "20,100,100", "--max_iter", "2", "--width", "4", "8", "--eval_iter", "1"]
    small += ["--cpu", "--num_workers", "0"]
    run.main(["--config", str(ROOT / "experiments/demo/exp.yaml"), *small])
    run.main(["--config", "experiments/demo/options.yaml", "--exp_name", "again"])
    states = [torch.load(f"experiments/{name}/models/model2.chkpt", weights_only=True) for name in ("demo", "again")]
    for key in ("state_dict", "optimizer"):
        assert same(states[0][key], states[1][key])
