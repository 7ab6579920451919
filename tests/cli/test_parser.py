"""Command lines: negative vectors, files of arguments, flags of plug-ins, errors of one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepem.cli import forward_parser, migration, signatures, train_parser
from deepem.cli import words as readers
from deepem.cli.flags import Flag
from deepem.cli.parser import Parser
from deepem.utils.errors import InputError

RECIPE = "def get_augmentation(is_train, *, {}):\n    return None\n"


FLAGS = [
    Flag("edges", list[tuple[int, int, int]] | None, None, "", read=readers.edge, many="*"),
    Flag("lr", float, 0.1, "", read=readers.positive),
    Flag("box", tuple[int, int, int] | None, None, "", read=readers.size),
    Flag("out_tag", str, "", ""),
    Flag("augment", list[str] | None, None, "", many="*"),
    Flag("test_ids", list[str] | None, None, ""),
]


def parse(words: list[str]) -> SimpleNamespace:
    parser = Parser("run.py", "")
    parser.add_flags("flags", FLAGS)
    return SimpleNamespace(**parser.read(words).values)


def test_negative_vectors_are_values() -> None:
    assert parse(["--edges", "0,0,1", "-1,0,0"]).edges == [(0, 0, 1), (-1, 0, 0)]


@pytest.mark.parametrize("tag", ["-1", "-x", "-1.5,2", "- ", "-h5", "=", " a ", "-"])
def test_a_text_that_begins_with_a_dash_is_used_as_typed(tag: str, tmp_path: Path) -> None:
    for words in (["--out_tag", tag, "--lr", "3"], [f"--out_tag={tag}", "--lr", "3"]):
        assert (parse(words).out_tag, parse(words).lr) == (tag, 3)
    assert parse(["--test_ids", "a", tag, "--lr", "3"]).test_ids == ["a", tag]
    (tmp_path / "it.args").write_text(f"--out_tag '{tag}'\n--lr 3\n")
    assert parse([f"@{tmp_path}/it.args"]).out_tag == tag


@pytest.mark.parametrize("words", [["--out_tag", "--lr", "3"], ["--out_tag", "-h"], ["--out_tag"]])
def test_a_flag_is_no_text(words: list[str]) -> None:
    with pytest.raises(InputError, match="--out_tag: got nothing, wants one value"):
        parse(words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--lr", "x"], "--lr: got x, wants a number above 0"),
        (["--lr", "nan"], "--lr: got nan, wants a number above 0"),
        (["--lr"], "--lr: got nothing, wants one value"),
        (["--box", "1,2"], "--box: got 1,2, wants three sizes z,y,x of 1 or more, with commas: 20,128,128"),
        (["--edges", "0,0,0"], "--edges: got 0,0,0, wants an edge z,y,x such as 0,0,1"),
        (["--nosuch", "1"], "--nosuch: got an unknown flag, wants a flag of --help"),
        (["--edge", "0,0,1"], "--edge: got an unknown flag, wants a flag of --help"),
        (["@nowhere"], "@nowhere: got No such file or directory, wants a file of arguments"),
        (["word"], "word: got a word that belongs to no flag, wants --FLAG VALUE"),
    ],
)
def test_bad_words_are_one_line(words: list[str], line: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(words)
    assert str(caught.value) == line


def test_a_flag_of_a_module_that_is_not_chosen_says_which_take_it() -> None:
    with pytest.raises(InputError, match=r"wants a module that does: .*--data synthetic"):
        parse(["--synth_size", "1,2,3"])


def test_public_flags_that_nothing_takes_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    parse(["--lost", "--missing", "7"])
    assert capsys.readouterr().err.splitlines() == [
        "warning: --lost: no chosen module takes it; there is no such augmentation in this run "
        "(--augment flyem.aug_mip1 or --augment pinky_basil.aug_mip0_v0 or "
        "--augment pinky_basil.aug_mip0_valid0 has it)",
        "warning: --missing: no chosen module takes it; there is no such augmentation in this run "
        "(--augment flyem.aug_mip1 or --augment kasthuri11.aug_v2 or --augment kasthuri11.aug_v2_valid has it)",
    ]


@pytest.mark.parametrize(("word", "successor"), [("--base_lr", "--lr"), ("--autotune", "--cudnn_benchmark")])
def test_flags_of_the_public_code_name_their_successors(word: str, successor: str) -> None:
    with pytest.raises(InputError, match=f"{word}: got a flag of the public DeepEM, wants {successor}"):
        parse([word, "1"])


def test_a_public_flag_without_effect_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    parse(["--flip", "--no_autotune"])
    told = capsys.readouterr().err.splitlines()
    ignored = "no chosen module takes it; ignored (accepted, without effect: "
    assert told[0].startswith(f"warning: --flip: {ignored}every recipe flips")
    assert told[1].startswith(f"warning: --no_autotune: {ignored}in the public code")


def test_flags_that_migration_calls_the_same_are_there() -> None:
    programs = {"train": train_parser.parser().flags, "forward": forward_parser.parser().flags}
    for who, names in migration.SAME.items():
        for name in names.split():
            there = name in programs[who] if who in programs else signatures.takers(name)
            assert there or name.removeprefix("no_") in programs[who], f"--{name} of {who}"
            assert f" {name}" in migration.page()


def test_public_flags_keep_no_more_words_than_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    parse(["--misalign", "-3", "--width", "8", "16", "--recompute", "--act", "ELU"])
    assert len(capsys.readouterr().err.splitlines()) == 4
    for words in ("--recompute stray", "--missing 7 stray", "--missing=7 stray", "--lr 0.5 stray --recompute"):
        with pytest.raises(InputError, match="stray: got a word that belongs to no flag"):
            parse(words.split())


def test_plug_in_flags_follow_their_types(tmp_path: Path) -> None:
    path = tmp_path / "recipe.py"
    path.write_text(
        RECIPE.format("on: bool = True, size: tuple[int, int, int] = (1, 2, 3), names: list[str] | None = None")
    )
    options = parse(["--augment", str(path), "--no-on", "--size", "-4,5,6", "--names", "a", "b"])
    assert (options.on, options.size, options.names) == (False, (-4, 5, 6), ["a", "b"])


@pytest.mark.parametrize(
    ("parameter", "words", "value"),
    [
        ("x: Literal[2, 3] = 2", ["3"], 3),
        ("x: Literal['a', 1] | None = None", ["1"], 1),
        ("x: list[Literal[2, 3]] = [2]", ["3", "2"], [3, 2]),
        ("x=(1, 2, 3)", ["-4,5,6"], (-4, 5, 6)),
        ("x=(1, 0.5, 0.5)", ["1,1,0.25"], (1.0, 1.0, 0.25)),
        ("x: tuple = (1, 2, 3)", ["4,5,6"], (4, 5, 6)),
        ("x=[1, 2]", ["3"], [3]),
        ("x: list = [0.5]", ["3", "4"], [3.0, 4.0]),
        ("x=[(0, 0, 1)]", ["0,0,1", "-1,0,0"], [(0, 0, 1), (-1, 0, 0)]),
        ("x=[]", ["a", "b"], ["a", "b"]),
        ("x=1", ["3"], 3),
        ("x: tuple[int, ...] | None = None", ["1,2,3"], (1, 2, 3)),
        ("x: typing.Tuple[float, float, float] = (1., 1., 1.)", ["1,2,0.5"], (1.0, 2.0, 0.5)),
        ("x: list | None = None", None, "list"),
        ("x=(1, 2)", ["3,4"], (3, 4)),
        ("x: tuple[int, ...] = ()", ["3"], (3,)),
        ("x: int | None = 3", ["none"], None),
        ("x: str | None = None", ["none"], "none"),
        ("x: int | tuple[int, int, int] = 3", ["3,3,1"], (3, 3, 1)),
        ("x: dict[str, float] | None = None", ["a=1", "b.c=2.5"], {"a": 1.0, "b.c": 2.5}),
        ("x: list[list[int]] | None = None", ["1", "2", "/", "3"], [[1, 2], [3]]),
        (
            "x: list[list[tuple[int, int, int]]] | None = None",
            ["3,3,3", "3,3,3", "/", "1,3,3"],
            [[(3, 3, 3), (3, 3, 3)], [(1, 3, 3)]],
        ),
        ("x: tuple[str, str, str] = ('a', 'b', 'c')", None, "a tuple of numbers"),
        ("x=None", None, "NoneType"),
    ],
)
def test_the_type_of_a_flag(tmp_path: Path, parameter: str, words: list[str] | None, value: object) -> None:
    path = tmp_path / "recipe.py"
    path.write_text("import typing\nfrom typing import Literal\n" + RECIPE.format(parameter))
    if words is None:
        with pytest.raises(InputError, match=str(value)):
            parse(["--augment", str(path)])
        return
    assert parse(["--augment", str(path), "--x", *words]).x == value
    with pytest.raises(SystemExit):
        parse(["--augment", str(path), "--help"])


def test_two_plug_ins_may_share_a_flag_only_if_it_is_the_same(tmp_path: Path) -> None:
    files = [tmp_path / f"r{i}.py" for i in range(3)]
    for path, text in zip(files, ("x: int = 1", "x: int = 1", "x: int = 2"), strict=True):
        path.write_text(RECIPE.format(text))
    assert parse(["--augment", str(files[0]), str(files[1]), "--x", "5"]).x == 5
    with pytest.raises(InputError, match=r"--x: got int = 1 in .*r0.py and int = 2 in .*r2.py"):
        parse(["--augment", str(files[0]), str(files[2])])


def test_a_plug_in_cannot_take_a_name_of_the_machinery(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text(RECIPE.format("lr: float = 1.0"))
    with pytest.raises(InputError, match="the flag --lr"):
        parse(["--augment", str(path)])


def test_help_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; sys.argv = ['run.py', '--help', '--data', 'synthetic', '--augment', 'grayscale_warping']\n"
        "from deepem.train.run import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'cv2', 'numpy', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(flag in done.stdout for flag in ("--width", "--synth_size", "--warping", "--max_iter"))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--loss MSELoss", "loss", "MSELoss"),
        ("--loss mit=MSELoss", "loss", {"mit": "MSELoss"}),
        ("--loss BCELoss mit=MSELoss", "loss", {"all": "BCELoss", "mit": "MSELoss"}),
        ("--class_balancing", "class_balancing", True),
        ("--class_balancing aff mit", "class_balancing", {"aff": True, "mit": True}),
        ("--margin0 0.1", "margin0", 0.1),
        ("--margin1 0.1 aff=0", "margin1", {"all": 0.1, "aff": 0.0}),
    ],
)
def test_losses_per_task_are_read_and_written(tmp_path, words, name, value):
    own = ["--data", "synthetic", "--aff", "1", "--mit", "1", *words.split()]
    options = train_parser.parse(own)
    assert getattr(options.loss, name) == value
    (tmp_path / "again").write_text("\n".join(options.lines))
    assert train_parser.parse([f"@{tmp_path / 'again'}"]).flat() == options.flat()


def test_a_loss_of_a_task_that_is_not_trained_is_bad_input():
    with pytest.raises(InputError, match="--loss: got syn, wants chosen tasks: aff"):
        train_parser.parse(["--data", "synthetic", "--aff", "1", "--loss", "syn=MSELoss"])
