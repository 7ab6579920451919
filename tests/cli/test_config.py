"""Files of settings: composed, read as words of the command line, their faults told in one line with file and line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepem.cli import config_file, config_words, forward_parser, one_line, train_parser
from deepem.cli import words as readers
from deepem.cli.flags import Flag
from deepem.cli.parser import Parser
from deepem.utils.errors import InputError

FLAGS = [
    Flag("lr", float, 0.1, "", read=readers.positive),
    Flag("box", tuple[int, int, int] | None, None, "", read=readers.size),
    Flag("edges", list[tuple[int, int, int]] | None, None, "", read=readers.edge, many="*"),
    Flag("widths", list[list[int]] | None, None, ""),
    Flag("betas", tuple[float, ...], (0.9, 0.99), "", read=readers.fraction, many=2),
    Flag("scales", dict[str, float] | None, None, ""),
    Flag("name", str | None, None, ""),
    Flag("names", list[str] | None, None, "", many="+"),
    Flag("rpn_nms_thresh", float, 0.5, ""),
    Flag("thresh", float, 0.5, ""),
    Flag("nms_thresh", float, 0.5, ""),
    Flag("fast", bool, False, ""),
    Flag("plain", bool, False, "", negatable=False),
]


def given(folder: Path, text: str, *words: str) -> dict[str, Any]:
    """What a file gives, and the command line beside it."""
    (folder / "a.yaml").write_text(text)
    reader = Parser("prog", "")
    reader.add_flags("flags", FLAGS)
    found = reader.read(["--config", str(folder / "a.yaml"), *words])
    return {name: found.values[name] for name in found.typed}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr: 1e-3", {"lr": 0.001}),
        ("lr: '0.5'", {"lr": 0.5}),
        ("training: {deep: {lr: 2}}", {"lr": 2.0}),
        ("box: [1, 2, 3]", {"box": (1, 2, 3)}),
        ("box: 1,2,3", {"box": (1, 2, 3)}),
        ("edges: [[0, 0, 1], [-1, 0, 0]]", {"edges": [(0, 0, 1), (-1, 0, 0)]}),
        ("edges: ['-1,0,0']", {"edges": [(-1, 0, 0)]}),
        ("edges: -1,0,0", {"edges": [(-1, 0, 0)]}),
        ("edges: []", {"edges": []}),
        ("widths: [[1, 2], [3]]", {"widths": [[1, 2], [3]]}),
        ("betas: [0.5, 0.75]", {"betas": (0.5, 0.75)}),
        ("scales: {a.b: 2, c: 1e-1}", {"scales": {"a.b": 2.0, "c": 0.1}}),
        ("more: {scales: {lr: 2}}", {"scales": {"lr": 2.0}}),
        ("name: no", {"name": "no"}),
        ("name: '@x'", {"name": "@x"}),
        ("name: -x", {"name": "-x"}),
        ("names: [--lr, yes, 7]", {"names": ["--lr", "yes", "7"]}),
        ("name: null", {}),
        ("fast: true\nplain: yes", {"fast": True, "plain": True}),
        ("fast: false\nplain: off", {"fast": False, "plain": False}),
        ("y: {<<: {lr: 2, fast: true}, lr: 3}", {"lr": 3.0, "fast": True}),
        ("", {}),
        ("# nothing\n", {}),
    ],
)
def test_a_file_gives_what_the_words_would(tmp_path: Path, text: str, values: dict[str, Any]) -> None:
    assert given(tmp_path, text) == values


def test_the_command_line_wins(tmp_path: Path) -> None:
    assert given(tmp_path, "lr: 1\nfast: true", "--no-fast", "--lr", "2") == {"lr": 2.0, "fast": False}


def test_a_heading_may_be_the_beginning_of_a_name(tmp_path: Path) -> None:
    assert given(tmp_path, "x: {rpn_nms_thresh: 0.7}") == {"rpn_nms_thresh": 0.7}
    assert given(tmp_path, "rpn_nms: {lr: 1}") == {"lr": 1.0}
    with pytest.raises(InputError) as caught:
        given(tmp_path, "rpn: {nms_thresh: 0.7}")
    assert str(caught.value) == (
        f"{tmp_path}/a.yaml:1: rpn.nms_thresh: got what can be --nms_thresh or --rpn_nms_thresh, "
        "wants the flag's whole name under another heading"
    )
    with pytest.raises(InputError, match="--thresh or --nms_thresh or --rpn_nms_thresh"):
        given(tmp_path, "x: {rpn: {nms: {thresh: 0.7}}}")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_files_build_on_others(tmp_path: Path) -> None:
    write(
        tmp_path, models__small="names: [a, b]\nlr: 1\nheads: {scales: {x: 1, y: 2}}", base="thresh: 0.25\nfast: true"
    )
    text = "defaults: [base, models: small]\nlr: 3\nheads: {scales: {y: 5}}\nfast: null\nnames: [c]"
    assert given(tmp_path, text) == {"names": ["c"], "lr": 3.0, "scales": {"x": 1.0, "y": 5.0}, "thresh": 0.25}
    text = "defaults: [base, _self_, models: small]\nlr: 3\nthresh: 1"
    assert given(tmp_path, text)["lr"] == 1.0
    assert given(tmp_path, text)["thresh"] == 1.0


def test_the_later_file_wins(tmp_path: Path) -> None:
    write(tmp_path, b="heading: {lr: 7}\nbox: [1, 1, 1]")
    found = given(tmp_path, "lr: 1\nname: x", str(tmp_path / "b.yaml"))
    assert found == {"lr": 7.0, "name": "x", "box": (1, 1, 1)}


def test_each_program_has_its_heading(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: {lr: 1, batch_size: 8}\nforward: {batch_size: 2}\nsweep: null\n")
    settings = config_file.read([path])
    for program, size in (("train", "8"), ("forward", "2")):
        found = config_file.of_program(settings, program)
        assert {s.path: s.node.value for s in found}[("batch_size",)] == size
    with pytest.raises(InputError, match="no heading segment, wants one beside forward, train"):
        config_file.of_program(settings, "segment")


COMMON = "data: synthetic\naff: 1\nfov: [8, 32, 32]\nsynth_size: 12,48,48\nwidth: [4, 8]\ncpu: true\nmax_iter: 1\n"
FAULTS = {
    "unclosed": ("lr: [1\nmit: 2\n", ":9", "expected ',' or ']'"),
    "tab": ("optim:\n\tlr: 1\n", ":9", "cannot start any token"),
    "twice": ("lr: 1\nlr: 2\n", ":9: lr: got it twice, before in line 8, wants it once", ""),
    "twice, once under a heading": ("lr: 1\nx: {lr: 2}\n", ":9: lr: got --lr again, before in line 8", ""),
    "unknown": ("max_itr: 3\n", ":8: max_itr: got an unknown setting, wants max_iter", ""),
    "unknown under a heading": ("run: {max_itr: 3}\n", ":8: run.max_itr: got an unknown setting, wants max_iter", ""),
    "no number": ("lr: fast\n", ":8: lr: got fast, wants a number above 0", ""),
    "below 0": ("lr: -1\n", ":8: lr: got -1, wants a number above 0", ""),
    "list for one value": ("lr: [1, 2]\n", ":8: lr: got the list [1, 2], wants one value", ""),
    "two of three sizes": ("inputsz: [8, 32]\n", ":8: inputsz: got 8,32, wants three sizes", ""),
    "three of two betas": ("betas: [0.1, 0.2, 0.3]\n", ":8: betas: got 3 values, wants 2", ""),
    "no truth value": ("size_average: 1\n", ":8: size_average: got 1, wants true or false", ""),
    "choice": ("loss: Dice\n", ":8: loss: got Dice, wants one of BCELoss, MSELoss", ""),
    "empty list": ("train_ids: []\n", ":8: train_ids: got nothing, wants at least one value", ""),
    "no mapping": ("- lr\n", ":", "expected <block end>"),
    "tag": ("exp_name: !!python/name:os.system x\n", ":8: exp_name: got the tag", ""),
    "alias": ("lr: *other\n", ":8", "undefined alias"),
    "two documents": ("---\nlr: 1\n", ":8", "found another document, wants YAML (expected a single document"),
    "name that is a list": ("? [a, b]\n: 1\n", ":8: got a sequence for a name", ""),
    "commas in braces": ("x: {inputsz: 8,32,32}\n", ":8: got the number 32 for a name, wants [8, 64, 64]", ""),
    "group": ("defaults: [models: tiny]\n", ":8: defaults: got", "wants one of small"),
    "defaults": ("defaults: small\n", ":8: defaults: got a scalar, wants a list", ""),
    "circle": ("defaults: [a]\n", ":8: defaults: got", "which this file is read for"),
    "other module": ("sharpen: 3\n", ":8: sharpen: got", "setting"),
    "module": ("augment: nowhere\n", ":8: augment nowhere: got no such module, wants one of", ""),
    "operation": (
        "augment:\n- Flip\n- Mislaign: {}\n",
        ":10: augment[1]: got the operation Mislaign",
        "",
    ),
    "argument": (
        "augment:\n- Misalign:\n    disp: [0, 3]\n    rott: 1\n",
        ":11: augment[0].Misalign.rott",
        "wants rot",
    ),
    "value": ("augment: [{Warp: {skip: often}}]\n", ':8: augment[0].Warp.skip: got "often", wants a number', ""),
    "range": ("augment: [Flip,\n  {Warp: {skip: 2}}]\n", ":9: augment[1].Warp: got", "wants"),
    "phase": ("augment: {train: [Flip], val: [Flap]}\n", ":8: augment.val[0]: got the operation Flap, wants Flip", ""),
    "ids": ("val_ids:\n  [v77]\n", ":8: val_ids", "v77"),
    "parts": ("batch_size: 4\naccumulate: 3\n", ":8: batch_size: got 4", "a multiple of 3"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deepem.train import run

    text, begins, holds = FAULTS[name]
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a=COMMON + text, models__small="lr: 1")
    with pytest.raises(SystemExit) as caught:
        run.main(["--config", "a.yaml"])
    assert caught.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run.py: error: a.yaml{begins}")
    assert holds in line
    assert ", wants " in line
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "none.yaml",
            "--config none.yaml: got none.yaml: No such file or directory, wants one of a, deep, latin",
        ),
        (".", "--config .: got .: Is a directory, wants a YAML file"),
        ("latin.yaml", "latin.yaml: got the byte 0xe9, which is not UTF-8, wants UTF-8"),
        ("list.yaml", "list.yaml:1: got no mapping, wants NAME: VALUE on each line"),
        ("self.yaml", "self.yaml:1: got a mapping that contains itself, wants NAME: VALUE"),
        ("loop.yaml", "loop.yaml:2: got a sequence that contains itself, wants NAME: VALUE"),
        ("many.yaml", "many.yaml:1: got values nested without end, wants NAME: VALUE"),
        ("deep.yaml", "deep.yaml: got lists or mappings in each other too deep, wants fewer levels"),
    ],
)
def test_a_file_that_is_no_mapping(file: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="lr: 1", list="[1, 2]", self="x: &x {y: *x}")
    Path("latin.yaml").write_bytes(b"name: caf\xe9")
    aliases = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 9))
    write(tmp_path, loop="lr: 1\nx: &x [1, *x]", many=f"x0: &x0 [1]\n{aliases}", deep="[" * 5000)
    with pytest.raises(InputError) as caught:
        config_file.read([file])
    assert str(caught.value).removesuffix(", list, loop, many, self") == line


def test_an_error_found_after_the_parsing_names_the_line_unless_the_command_line_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="lr: 1\n\nbatch_size: 3")
    for more, where in (([], "a.yaml:3: batch_size"), (["--batch_size", "5"], "--batch_size")):
        words = ["--config", "a.yaml", *more]
        with pytest.raises(SystemExit), one_line.one_line_errors("run.py", words):
            raise InputError("--batch_size", 3, "4")
        assert capsys.readouterr().err == f"run.py: error: {where}: got 3, wants 4\n"


def test_settings_are_printed_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    augment = "augment:\n  train: [{Misalign: {disp: [0, 3]}}, {Blend: [Flip, null]}]\n  val: [Flip]\n"
    write(tmp_path, a=COMMON + augment)
    with pytest.raises(SystemExit):
        train_parser.parse(["--config", "a.yaml", "--lr", "2", "--max_iter", "1000000", "--print_config"])
    printed = capsys.readouterr().out
    write(tmp_path, b=printed)
    assert "lr: 2.0\n" in printed
    assert "max_iter: 1000000\n" in printed  # a default that is given is kept
    words = ["--config", "a.yaml", "--lr", "2", "--max_iter", "1000000"]
    assert train_parser.parse(["--config", "b.yaml"]).flat() == train_parser.parse(words).flat()


def test_a_schema_lists_every_flag_and_accepts_what_is_written(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        train_parser.parse(["--schema", "--data", "synthetic", "--model", "rsunet"])
    made = json.loads(capsys.readouterr().out)["$defs"]["settings"]["properties"]
    assert set(train_parser.parser().flags) | {"synth_size", "width"} <= set(made)
    assert made["size_average"] == {
        "description": "loss: take the mean over voxels instead of the sum",
        "anyOf": [{"type": "boolean"}, {"type": "null"}],
        "default": False,
    }
    assert [name for name in made if "description" not in made[name] and "anyOf" not in made[name]] == []


def test_a_setting_by_task_is_a_mapping_or_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["--data", "synthetic", "--aff", "1", "--mit", "1"]
    for text, words in {
        "margin0: {aff: 0.1, mit: 0.2}": ["--margin0", "aff=0.1", "mit=0.2"],
        "margin0: 0.1\nloss: [BCELoss, mit=MSELoss]": ["--margin0", "0.1", "--loss", "BCELoss", "mit=MSELoss"],
        "class_balancing: true": ["--class_balancing"],
        "class_balancing: false": [],
        "class_balancing: [mit]": ["--class_balancing", "mit"],
        "lr_scale: {core.enc: 0.1}": ["--lr_scale", "core.enc=0.1"],
    }.items():
        write(tmp_path, a=text)
        assert train_parser.parse([*base, "--config", "a.yaml"]).flat() == train_parser.parse([*base, *words]).flat()


def test_inference_reads_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="exp_name: nowhere\ntags: {affinity: aff}")
    with pytest.raises(InputError, match="--exp_name nowhere: got no readable checkpoint"):
        forward_parser.parse(["--config", "a.yaml"])
    reader = forward_parser.parser()
    flags = {"tags": reader.flags["tags"], "exp_name": reader.flags["exp_name"]}

    def read(words: list[str]) -> Any:
        return vars(reader.parse_known_args(words)[0])

    assert config_words.values(config_file.read(["a.yaml"]), flags, read, final=True)["tags"] == {"affinity": "aff"}


def test_verbs_read_files_as_the_programs_do(tmp_path: Path, verb_env: dict[str, str]) -> None:
    write(tmp_path, a="model: rsunet\nfov: [8, 32, 32]\nwidth: [4, none]")
    command = [sys.executable, "-m", "deepem", "summary", "--config", "a.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=verb_env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "deepem summary: error: a.yaml:3: width: got none, wants a whole number\n"
