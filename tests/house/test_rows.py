"""The table of tasks is whole: every row says all it must, and every kind is served wherever kinds are told apart."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from deepem.tasks import KINDS, NEAREST_EDGES, TASKS, Task


def flaws(rows: Sequence[Task]) -> list[str]:
    """What is missing from rows, or there twice."""
    wrong = []
    for row in rows:
        texts = (row.flag, row.name, row.source)
        wrong += [f"{row.flag}: {text!r} is no name" for text in texts if not text.isidentifier()]
        if row.kind not in KINDS:
            wrong.append(f"{row.flag}: unknown kind {row.kind}")
        if not row.help:
            wrong.append(f"{row.flag}: no help")
        if row.kind == "affinity" and row.channels != len(row.edges):
            wrong.append(f"{row.flag}: {row.channels} channels for {len(row.edges)} edges")
        if row.kind != "affinity" and (row.channels < 1 or row.edges):
            wrong.append(f"{row.flag}: {row.channels} channels, edges {row.edges}")
        if row.fallback == row.source:
            wrong.append(f"{row.flag}: falls back on itself")
    flags = [row.flag for row in rows]
    return wrong + [f"{flag}: two rows" for flag in sorted(set(flags)) if flags.count(flag) > 1]


def incomplete_tables(files: Iterable[Path], kinds: Iterable[str] = KINDS) -> list[str]:
    """Dictionaries keyed by kinds that leave one out. (`affinity` alone is also the name of an output.)"""
    kinds = set(kinds)
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                if keys & kinds - {"affinity"} and keys != kinds:
                    found.append(f"{path.name}:{node.lineno} has {sorted(map(str, keys))}")
    return found


def test_every_row_is_whole():
    assert flaws(TASKS) == []


def test_the_public_flags_and_outputs_are_there():
    assert {row.flag: (row.name, row.source, row.channels) for row in TASKS} == {
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
    assert NEAREST_EDGES == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_every_table_of_kinds_is_complete(root):
    assert incomplete_tables(sorted((root / "deepem").rglob("*.py"))) == []


@pytest.mark.parametrize(
    "row",
    [
        Task("aff", "affinity", "seg", "affinity", 2, "help", NEAREST_EDGES),
        Task("mit", "mitochondria", "mit", "voxel", 1, "help"),
        Task("mit", "mitochondria", "mit", "binary", 0, "help"),
        Task("mit", "mito chondria", "mit", "binary", 1, "help"),
        Task("mit", "mitochondria", "mit", "binary", 1, ""),
        Task("bdr", "boundary", "bdr", "binary", 1, "help", fallback="bdr"),
    ],
)
def test_a_flaw_is_found(row):
    assert len(flaws([row])) == 1


def test_two_rows_of_one_flag_are_found():
    assert flaws([TASKS[0], TASKS[0]]) == ["aff: two rows"]


def test_an_incomplete_table_is_found(tmp_path):
    path = tmp_path / "render.py"
    path.write_text('DRAW = {"binary": grey}\nSIZE = {"affinity": 3}\nALL = {"affinity": rgb, "binary": grey}\n')
    assert incomplete_tables([path]) == ["render.py:1 has ['binary']"]
    assert len(incomplete_tables([path], (*KINDS, "instance"))) == 2
