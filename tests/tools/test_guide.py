"""The manual: topics are files, the flags come from the declarations, the examples in Python run."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

from deepem.cli import config_file, forward_parser, train_parser
from deepem.tools import guide


def test_every_topic_has_a_title_and_fits_a_terminal() -> None:
    names = "annotate config conventions formats errors cluster publish pytc dacapo python view"
    assert set(names.split()) <= set(guide.topics())
    for name, title in guide.topics().items():
        text = (guide.TOPICS / f"{name}.txt").read_text()
        assert title
        assert text.splitlines()[1] == ""
        assert max(map(len, text.splitlines())) <= 120, name


def test_topics_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert guide.main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name}" in listed for name in (*guide.topics(), "flags"))
    assert guide.main(["formats"]) == 0
    assert capsys.readouterr().out == (guide.TOPICS / "formats.txt").read_text()
    with pytest.raises(SystemExit):
        guide.main(["format"])
    assert "wants formats, or one of" in capsys.readouterr().err


def test_the_flags_are_those_that_are_declared() -> None:
    text = guide.flags()
    flags = {**train_parser.parser().flags, **forward_parser.parser().flags}
    assert [name for name in flags if f"  --{name}" not in text] == []
    assert "dataset synthetic\n" in text
    assert "--synth_size" in guide.flags("synthetic")
    assert "--synth_size" not in guide.flags("train")
    assert guide.flags("train").startswith("train\n=====\n\ndata (MODULE")


def test_flags_that_the_manual_names_are_there() -> None:
    """Every --flag in the text, and every setting of its YAML, is one of a program or a plug-in."""
    known = set(re.findall(r"^  --(\w+)", guide.flags(), re.M))
    argparse_verbs = {"out", "truth", "help", "nodes", "config", "print_config", "schema"}
    argparse_verbs |= {"bundle", "licence", "example", "table", "patience"}
    elsewhere = {"nproc", "rpn_score_thresh"}  # of torchrun, and an example
    for path in guide.TOPICS.glob("*.txt"):
        named = {name.removeprefix("no_") for name in re.findall(r"--(\w+)", path.read_text())}
        others = (
            {"file", "base", "name", "key"} if path.stem == "pytc" else {"data"} if path.stem == "migrate" else set()
        )
        assert {n for n in named if n not in known | argparse_verbs | elsewhere | others | {"FLAG", "no"}} == set(), (
            path
        )


def test_the_examples_in_python_run() -> None:
    found = doctest.testfile(str(guide.TOPICS / "python.txt"), module_relative=False)
    assert found.attempted > 20
    assert found.failed == 0


def test_the_files_of_settings_in_the_manual_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.split(r"\n\n(?=\S)", (guide.TOPICS / "config.txt").read_text())
    yaml = [block for block in re.findall(r"((?:^    .*\n)+)", "\n\n".join(blocks), re.M) if ": " in block]
    yaml = [block for block in yaml if "deepem " not in block]
    assert len(yaml) == 3
    Path("models").mkdir()
    Path("models/small.yaml").write_text("model: rsunet\nlr: 7\n")
    for number, block in enumerate(yaml):
        Path(f"{number}.yaml").write_text(block)
        assert config_file.read([f"{number}.yaml"])
    options = train_parser.parse(
        ["--config", "0.yaml", "--augment", "grayscale_warping", *shlex.split("--data synthetic")]
    )
    assert (options.network.inputsz, options.optimiser.lr) == ((16, 96, 96), 0.001)
