"""Ids of the command line: whose they are where modules are called alike, and what modules give that is no volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepem import tasks
from deepem.build import selection, volumes
from deepem.cli.plugins import PlugIn, load
from deepem.utils.errors import InputError

LOAD = "def load_data(data_dir, data_ids=None, **_):\n    return {i: {'img': (__file__, i)} for i in data_ids}\n"
Make = Callable[..., list[selection.DataSet]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Datasets of some words; their files are written into the working directory first: path -> source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def build(files: dict[str, str], *words: str) -> list[selection.DataSet]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if "load_data" in text else f"data_info = {text}\n{LOAD}")
        names = words or tuple(files)
        return [selection.DataSet(PlugIn("dataset", word, load("dataset", word), {})) for word in names]

    return build


def chosen(datasets: list[selection.DataSet], *words: str) -> list[str]:
    return [ref.word for ref in selection.choose_ids(datasets, words or None, None)[0]]


def refused(datasets: list[selection.DataSet], *words: str) -> str:
    with pytest.raises(InputError) as caught:
        selection.choose_ids(datasets, words, None)
    return str(caught.value)


def test_modules_called_alike_are_all_trained_on(make: Make) -> None:
    sets = make({"x/cortex.py": "['a']", "y/cortex.py": "['a', 'b', 'c']"})
    train, val = selection.choose_ids(sets, None, None)
    assert [ref.word for ref in train] == ["x.cortex/a", "y.cortex/a", "b"]
    assert [ref.word for ref in val] == ["x.cortex/a", "c"]
    loaded = volumes.load([*train, *val], Path(), tasks.TASKS[:1])
    assert [(Path(v["img"][0]).parent.name, v["img"][1]) for v in loaded.values()] == [
        ("x", "a"),
        ("y", "a"),
        ("y", "b"),
        ("y", "c"),
    ]


def test_what_is_written_down_can_be_given(make: Make) -> None:
    files = {"p/x/cortex.py": "['a', 'b']", "q/x/cortex.py": "['a', 'c']", "other.py": "['a']"}
    sets = make({**files, "cortex.py": "['a']"})
    words = [ref.word for ref in selection._every(sets)]
    here = Path.cwd().name
    assert words == ["p.x.cortex/a", "b", "q.x.cortex/a", "c", "other/a", f"{here}.cortex/a"]
    assert chosen(sets, *words) == words


@pytest.mark.parametrize("name", ["x.cortex", "x/cortex", "x/cortex.py", "./x/cortex.py", "../{here}/x/cortex"])
def test_a_module_is_told_by_the_end_of_its_path(make: Make, name: str) -> None:
    sets = make({"x/cortex.py": "['a']", "y/cortex.py": "['a', 's/b']"})
    assert chosen(sets, f"{name.format(here=Path.cwd().name)}/a") == ["x.cortex/a"]
    assert chosen(sets, "y.cortex/s/b", "y/cortex/a") == ["s/b", "y.cortex/a"]


def test_dotted_names_are_told_apart_as_files_are(make: Make) -> None:
    sets = make({"vol1/lobe.py": "['a']", "vol2/lobe/__init__.py": "['a']"}, "vol1.lobe", "vol2.lobe")
    assert chosen(sets) == ["vol1.lobe/a", "vol2.lobe/a"]
    sets = make({"synthetic.py": "['v1']"}, "synthetic", "./synthetic.py")
    assert chosen(sets, "dataset.synthetic/v1", "v2") == ["dataset.synthetic/v1", "v2"]


def test_a_short_name_that_two_have_does_not_decide(make: Make) -> None:
    sets = make({"x/cortex.py": "['a']", "y/cortex.py": "['a']"})
    for word in ("a", "cortex/a"):
        assert refused(sets, word) == (
            f"--train_ids: got {word}, which several modules have, wants x.cortex/a or y.cortex/a"
        )
    assert refused(sets, "z.cortex/a").endswith("wants one of x.cortex/a, y.cortex/a")
    assert refused(sets, "tex/a").endswith("wants one of x.cortex/a, y.cortex/a")


def test_an_id_with_a_slash_is_not_taken_for_another_modules(make: Make) -> None:
    sets = make({"x.py": "['a']", "y.py": "['x/a']"})
    assert chosen(sets) == ["a", "y/x/a"]
    assert chosen(sets, "y/x/a", "a") == ["y/x/a", "a"]
    assert refused(sets, "x/a") == "--train_ids: got x/a, which several modules have, wants a or y/x/a"


@pytest.mark.parametrize(
    "words", [("x/cortex.py", "x/cortex.py"), ("x/cortex.py", "./x/cortex.py"), ("x.cortex", "x/cortex.py")]
)
def test_a_module_given_twice_is_refused(make: Make, words: tuple[str, str]) -> None:
    sets = make({"x/cortex.py": "['a']"}, *words)
    assert refused(sets) == f"--data: got {words[0]} and {words[1]}, which are one module, wants each module once"


def test_an_id_given_twice_is_refused_however_it_is_written(make: Make) -> None:
    sets = make({"data.py": "['a', 'b']"})
    assert refused(sets, "a", "b", "a") == "--train_ids: got a twice, wants each id once"
    assert refused(sets, "a", "data/a") == "--train_ids: got a and data/a, which are one id, wants each id once"
    assert chosen(sets, "data/b", "a") == ["b", "a"]


def test_ids_may_be_numbers(make: Make) -> None:
    sets = make({"data.py": "{1: 'first', 2: 'second'}"})
    assert chosen(sets) == ["1"]
    train, _ = selection.choose_ids(sets, ["2"], None)
    assert (train[0].id, train[0].word) == (2, "2")
    assert refused(sets, "3") == "--train_ids: got 3, wants one of 1, 2"


@pytest.mark.parametrize(("info", "kind"), [("None", "NoneType"), ("'abc'", "str"), ("3", "int")])
def test_a_module_that_names_no_ids_is_one_line(make: Make, info: str, kind: str) -> None:
    sets = make({"data.py": info})
    assert refused(sets, "a") == (
        f"--data data.py: got data_info of type {kind}, wants data_info, a dict or list that names the ids"
    )


@pytest.mark.parametrize(
    ("result", "got"),
    [
        ("None", "None from load_data"),
        ("[1]", "a value of type list from load_data"),
        ("{'b': {}}", "no volume for id a from load_data"),
        ("{'a': None}", "None for id a from load_data"),
        ("{'a': [1, 2]}", "a value of type list for id a from load_data"),
    ],
)
def test_what_is_no_mapping_of_volumes_is_one_line(make: Make, result: str, got: str) -> None:
    sets = make({"data.py": f"data_info = ['a']\ndef load_data(data_dir, data_ids=None, **_):\n    return {result}\n"})
    train, _ = selection.choose_ids(sets, None, None)
    with pytest.raises(InputError) as caught:
        volumes.load(train, Path(), ())
    assert (caught.value.where, caught.value.got) == ("--data data.py", got)


def test_splits_name_ids_of_the_module(make: Make) -> None:
    sets = make({"data.py": "data_info = ['a', 'b']\nsplits = {'train': ['a'], 'val': ['z']}\n"})
    told = "--data data.py: got splits with the id z, wants ids of its data_info: a, b"
    assert refused(sets, "a") == told


def test_an_exception_inside_a_module_is_its_own(make: Make) -> None:
    sets = make({"data.py": "data_info = ['a']\ndef load_data(data_dir, data_ids=None, **_: int):\n    len(None)\n"})
    train: Any = selection.choose_ids(sets, None, None)[0]
    with pytest.raises(TypeError, match="len"):
        volumes.load(train, Path(), ())
