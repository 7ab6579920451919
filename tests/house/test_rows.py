"""The table of tasks is whole, every layer has an entry for each kind, and nobody else asks for a kind."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from deepem.tasks import KINDS, NEAREST_EDGES, TASKS

LAYERS = {
    "label storage and target": ("deepem/data/kinds.py", "KINDS"),
    "criterion": ("deepem/loss/kinds.py", "CRITERIA"),
    "picture": ("deepem/train/render.py", "PICTURES"),
    "activation, blend, flips": ("deepem/scan/kinds.py", "KINDS"),
    "volumes written and their attributes": ("deepem/test/kinds.py", "OUTPUTS"),
    "score": ("deepem/build/scores.py", "KINDS"),
    "preview": ("deepem/tools/sheet.py", "KINDS"),
    "layer of the viewer": ("deepem/tools/view_forms.py", "KINDS"),
    "figure": ("scripts/_panels.py", "KINDS"),
}
"""What a new kind needs an entry in: the file and the table."""


def entries(path: Path, table: str) -> set[str]:
    """The keys of a table that a file makes."""
    for node in ast.parse(path.read_text()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == table and isinstance(node.value, ast.Dict):
            return {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    raise AssertionError(f"{path} makes no table {table}")


def lacking(root: Path, kinds: Iterable[str]) -> list[str]:
    """The layers without an entry for a kind, and entries for what is no kind."""
    kinds, found = set(kinds), []
    for layer, (file, table) in LAYERS.items():
        there = entries(root / file, table)
        found += [f"{layer}: {file} {table} has no {kind}" for kind in sorted(kinds - there)]
        found += [f"{layer}: {file} {table} has {kind}, which is no kind" for kind in sorted(there - kinds)]
    return found


def other_tables(files: Iterable[Path], root: Path) -> list[str]:
    """Further dictionaries by kind. (`affinity` and `instance` are also the names of outputs.)"""
    known = {(root / file, table) for file, table in LAYERS.values()} | {(root / "deepem/tasks.py", "KINDS")}
    found = []
    for path in files:
        tree = ast.parse(path.read_text())
        mine = [node.value for node in tree.body if isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name) and (path, node.target.id) in known]  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict) and node not in mine:
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                if keys & set(KINDS) - {"affinity", "instance"}:
                    found.append(f"{path.name}:{node.lineno}")
    return found


def questions(path: Path) -> Iterator[int]:
    """The lines that compare a kind: with a kind's name, or `x.kind` with anything but a table.

    `dtype.kind` is numpy's, and `parameter.kind` compared with `parameter.KEYWORD_ONLY` is that of `inspect`.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [part for side in sides for part in getattr(side, "elts", [side])]
            if any(isinstance(part, ast.Constant) and part.value in KINDS for part in parts) or _of_a_row(parts):
                yield node.lineno
        elif isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant) and node.value.value in KINDS:
            yield node.value.lineno


def _of_a_row(parts: list[ast.expr]) -> bool:
    asked = [part.value for part in parts if isinstance(part, ast.Attribute) and part.attr == "kind"]
    constants = [
        p for p in parts if isinstance(p, ast.Name | ast.Attribute) and ast.unparse(p).split(".")[-1].isupper()
    ]
    return bool(asked) and not constants and not any(ast.unparse(base).endswith("dtype") for base in asked)


def asking(root: Path) -> list[str]:
    """Who asks for a kind. The room of the models does not know tasks, and may have words of its own."""
    files = [path for folder in ("deepem", "scripts") for path in sorted((root / folder).rglob("*.py"))]
    models = root / "deepem" / "models"
    return [
        f"{path.relative_to(root)}:{line}" for path in files if models not in path.parents for line in questions(path)
    ]


def test_flags_are_given_once():
    flags = [row.flag for row in TASKS]
    assert sorted(set(flags)) == sorted(flags)


def test_the_public_flags_and_outputs_are_there():
    public = {
        "aff": ("affinity", "seg", 3),
        "long": ("long_range", "seg", 0),
        "bdr": ("boundary", "bdr", 1),
        "syn": ("synapse", "syn", 1),
        "psd": ("synapse", "psd", 1),
        "mit": ("mitochondria", "mit", 1),
        "mye": ("myelin", "mye", 1),
        "fld": ("fold", "fld", 1),
        "blv": ("blood_vessel", "blv", 2),
        "glia": ("glia", "glia", 1),
    }
    there = {row.flag: (row.name, row.source, row.channels) for row in TASKS}
    assert {flag: there.get(flag) for flag in public} == public
    assert NEAREST_EDGES == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_every_layer_has_an_entry_for_every_kind(root):
    assert lacking(root, KINDS) == []


def test_the_layers_that_a_new_kind_lacks_are_listed(root):
    found = lacking(root, [*KINDS, "skeleton"])
    assert [line.split(":")[0] for line in found] == list(LAYERS)


def test_there_is_no_other_table_of_kinds(root):
    files = [path for folder in ("deepem", "scripts") for path in sorted((root / folder).rglob("*.py"))]
    assert other_tables(files, root) == []


def test_nobody_asks_for_a_kind(root):
    assert asking(root) == []


@pytest.mark.parametrize(
    "line",
    [
        "if task.kind == 'affinity': pass",
        "if 'binary' != kind: pass",
        "x = kind in ('semantic', 'other')",
        "x = row.kind == other",
        "match kind:\n    case 'binary': pass",
        "x = [t for t in tasks if t.kind not in few]",
    ],
)
def test_a_question_for_a_kind_is_found(tmp_path, line):
    path = tmp_path / "deepem" / "a.py"
    path.parent.mkdir()
    (tmp_path / "scripts").mkdir()
    path.write_text(line)
    assert len(asking(tmp_path)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "x = array.dtype.kind != 'f'",
        "x = parameter.kind is parameter.KEYWORD_ONLY",
        "x = task.kind in KINDS",
        "x = edges.get('affinity')",
        "x = TABLE[task.kind]",
    ],
)
def test_what_is_no_question_is_not(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert list(questions(tmp_path / "a.py")) == []


def test_another_table_is_found(tmp_path):
    path = tmp_path / "draw.py"
    path.write_text('DRAW = {"binary": grey}\nSIZE = {"affinity": 3}\nALL = {"affinity": rgb, "binary": grey}\n')
    assert other_tables([path], tmp_path) == ["draw.py:1", "draw.py:3"]
