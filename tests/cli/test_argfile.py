"""Files of arguments: read as a shell would, one line of error where they cannot be, written to be read again."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepem.cli import argfile, config_text, train_parser
from deepem.cli import words as readers
from deepem.cli.flags import Flag
from deepem.cli.parser import Given, Parser
from deepem.utils.errors import InputError

CANDIDATES = ["3", "0.25", "2,2,2", "0,0,1", "core.enc=0.1", "bf16", "MSELoss", "voi", "cosine", "-2,3.5", "volume"]
TEXT = "it's #1 \\ and @2"
BASE = ["--data", "synthetic", "--aff", "1"]
MODULES = {
    "loss": ["BCELoss", "aff=MSELoss"],
    "margin0": ["0.25", "aff=0.1"],
    "margin1": ["aff=0.1"],
    "class_balancing": ["aff"],
    "data": ["deepem.data.dataset.synthetic"],
    "model": ["vrunet"],
    "backbone": ["resnet18"],
    "augment": ["flip_rotate"],
    "modifier": ["crop2x"],
    "sampler": ["deepem.data.sampler.basic"],
}


FLAGS = [
    Flag("edges", list[tuple[int, int, int]] | None, None, "", read=readers.edge, many="*"),
    Flag("lr", float, 0.1, "", read=readers.positive),
    Flag("box", tuple[int, int, int] | None, None, "", read=readers.size),
    Flag("augment", list[str] | None, None, "", many="*"),
    Flag("exp_name", str | None, None, ""),
]


def read(words: list[str]) -> tuple[Given, Parser]:
    parser = Parser("run.py", "")
    parser.add_flags("flags", FLAGS)
    return parser.read(words), parser


def parse(words: list[str]) -> SimpleNamespace:
    return SimpleNamespace(**read(words)[0].values)


def test_a_file_of_arguments_is_split_as_a_shell_would(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("# comment\n--edges 0,0,1 -1,0,0 # more\n\n--lr '0.5'\n")
    options = parse([f"@{tmp_path / 'a'}"])
    assert (options.edges, options.lr) == ([(0, 0, 1), (-1, 0, 0)], 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--exp_name run#1 #2\n", ["--exp_name", "run#1"]),
        ("#'\n  # don't \\\n--a", ["--a"]),
        ("--aff 1.0 \\\n  --mit 2\\\n5\n", ["--aff", "1.0", "--mit", "25"]),
        ("--aff 1.0 \\\n# no more\n--mit 2", ["--aff", "1.0", "--mit", "2"]),
        ("--aff 1.0 \\", ["--aff", "1.0"]),
        ("--aff 1.0 \\\n", ["--aff", "1.0"]),
        ("\\\n\\\n--a\\\\\n--b", ["--a\\", "--b"]),
        ('--a "x \\\ny" \'it\'\\\'\'s\' "" "\\"#"\n', ["--a", "x y", "it's", "", '"#']),
        ("--a x\r\n--b\ty \\\r\nz\r\n", ["--a", "x", "--b", "y", "z"]),
        ("\ufeff--a é\u00a0\x0c\n", ["--a", "é\u00a0\x0c"]),
        ("", []),
    ],
)
def test_comments_quotes_and_continued_lines(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "a").write_bytes(text.encode())
    assert argfile.read(str(tmp_path / "a")) == words


@pytest.mark.parametrize(
    ("text", "where", "got"),
    [
        (b"--a b\n--exp_name don't\n--b won't\n", "a, line 2", "--exp_name don't"),
        (b'--a b \\\n\n--c \\\n "d\n', "a, line 3", '--c  "d'),
        (b"--a b\n\n--exp_name caf\xe9\n", "a, line 3", "the byte 0xe9, which is not UTF-8"),
        (b"--a b\n@{folder}/a\n", "a", "@{folder}/a, which it is read for"),
        (b"@{folder}\n", "{folder}", "Is a directory"),
        (b"@{folder}/b\n", "{folder}/b", "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: bytes, where: str, got: str) -> None:
    (tmp_path / "a").write_bytes(text.replace(b"{folder}", str(tmp_path).encode()))
    with pytest.raises(InputError) as caught:
        parse([f"@{tmp_path / 'a'}"])
    assert caught.value.where.startswith("@")
    assert caught.value.where.endswith(where.format(folder=tmp_path))
    assert caught.value.got == got.format(folder=tmp_path)


def test_a_file_may_name_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"@{tmp_path / 'b'} --lr 0.5 @{tmp_path / 'b'}")
    (tmp_path / "b").write_text("--edges -1,0,0")
    options = parse([f"@{tmp_path / 'a'}"])
    assert (options.edges, options.lr) == ([(-1, 0, 0)], 0.5)


@pytest.mark.parametrize("name", ["-x", "@x", "--lr", "-1", "", "a b#c", "no", "null", "~", "a: b", "[x", "'", "1e-3"])
def test_text_of_any_look_is_read_again(tmp_path: Path, name: str) -> None:
    given, parser = read([f"--exp_name={name}"])
    (tmp_path / "again").write_text("\n".join(argfile.in_words(given.values, parser.flags)))
    assert parse([f"@{tmp_path / 'again'}"]).exp_name == name
    (tmp_path / "again.yaml").write_text(config_text.as_yaml(given.values, parser.flags))
    assert parse(["--config", str(tmp_path / "again.yaml")]).exp_name == name


def test_options_of_plug_ins_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text(
        "def get_augmentation(is_train, *, on: bool = True, texts: list[str] | None = None, x=(1, 2, 3)):\n    ...\n"
    )
    words = ["--augment", str(path), "--edges", "0,0,1", "-1,0,0", "--no-on", "--texts", "a b", "#c", "--x=-4,5,6"]
    given, parser = read(words)
    (tmp_path / "again").write_text("\n".join(argfile.in_words(given.values, parser.flags)))
    assert read([f"@{tmp_path / 'again'}"])[0].values == given.values
    (tmp_path / "again.yaml").write_text(config_text.as_yaml(given.values, parser.flags))
    assert read(["--config", str(tmp_path / "again.yaml")])[0].values == given.values


def values(flag: Flag) -> list[list[str]]:
    """Words that give a flag another value than its default."""
    name = f"--{flag.name}"
    if flag.is_switch:
        return [[name], [f"--no-{flag.name}"]] if flag.negatable else [[name]]
    if flag.name in MODULES:
        return [[name, *MODULES[flag.name]]]
    form = flag.form
    assert form is not None
    accepted = [TEXT] if form.read is readers.text else [word for word in CANDIDATES if reads(flag, word)]
    assert accepted, f"no value for {name}: add one"
    if isinstance(form.many, int):
        return [[name, *[accepted[0]] * form.many]]
    return [[name, accepted[0]]] + ([[name, accepted[-1], accepted[0]]] if form.many else [])


def reads(flag: Flag, word: str) -> bool:
    try:
        return flag.form.read(word) != flag.default  # type: ignore[union-attr]
    except argparse.ArgumentTypeError:
        return False


TRAINING = [words for flag in train_parser.parser().flags.values() for words in values(flag)]


@pytest.mark.parametrize("words", TRAINING, ids=" ".join)
def test_every_option_of_training_is_read_again(tmp_path: Path, words: list[str]) -> None:
    needs = ["--edges", "0,0,1"] if words[0] == "--long" else []
    needs += ["--sem_classes", "3"] if words[0] == "--sem" else []
    needs += ["--model", "fpn"] if words[0] == "--backbone" else []
    needs += ["--lr_steps", "3"] if words[0] == "--lr_schedule" else []
    options = train_parser.parse([*BASE, *needs, *words])
    (tmp_path / "again").write_text("\n".join(options.lines))
    again = train_parser.parse([f"@{tmp_path / 'again'}"])
    assert again.flat() == options.flat()
    assert again.lines == options.lines
    (tmp_path / "again.yaml").write_text(options.settings)
    settings = train_parser.parse(["--config", str(tmp_path / "again.yaml")])
    assert settings.flat() == options.flat()
    assert settings.settings == options.settings
