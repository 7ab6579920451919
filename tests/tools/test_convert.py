"""Arguments and the options of a checkpoint as YAML that does the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab import Lab

from deepem.cli import forward_parser, train_parser
from deepem.tools import convert
from deepem.utils import checkpoint

WORDS = "--data synthetic --aff 1 --long 1 --edges 0,0,3 -1,0,0 --fov 8,32,32 --width 4 8 --betas 0.5 0.75 --tf32"


def test_an_argument_file_becomes_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.args").write_text(WORDS.replace(" --tf32", ""))
    assert convert.main(["a.args", "--out", "a.yaml"]) == 0
    assert train_parser.parse(["--config", "a.yaml"]).flat() == train_parser.parse(["@a.args"]).flat()


def test_the_options_of_a_checkpoint_become_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepem.runs.folder import plain

    monkeypatch.chdir(tmp_path)
    options = train_parser.parse(WORDS.replace(" --tf32", "").split()).flat()
    held = plain(options | {"outputsz": (8, 32, 32), "cropsz": None})
    checkpoint.write(Path("m.chkpt"), {"iter": 1, "state_dict": {"w": torch.zeros(1)}, "options": held})
    assert convert.main(["m.chkpt", "--out", "m.yaml"]) == 0
    again = train_parser.parse(["--config", "m.yaml"]).flat()
    assert plain(again) == plain(options | {"outputsz": (8, 32, 32)})


def test_arguments_of_inference_become_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    lab = Lab.with_checkpoint(tmp_path)
    lab.image("t1", (6, 20, 20))
    monkeypatch.chdir(tmp_path)
    words = "--exp_name exp --data_dir data --test_ids t1 --overlap 0,0,0 --test_aug 0 1"
    Path("f.args").write_text(words)
    assert convert.main(["f.args", "--program", "forward"]) == 0
    Path("f.yaml").write_text(capsys.readouterr().out)
    flat = [forward_parser.parse(given)[0].flat() for given in (["--config", "f.yaml"], ["@f.args"])]
    assert flat[0] == flat[1]


@pytest.mark.parametrize("words", [[], ["a", "b"], ["none.args"], ["none.chkpt"]])
def test_what_cannot_be_converted_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert.main(words)
    assert capsys.readouterr().err.count("\n") == 1
