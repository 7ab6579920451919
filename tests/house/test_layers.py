"""The one-way dependencies between the rooms of the house, read from the imports of every file.

::

    utils -> tasks, protocols -> io -> { data, loss, models, scan, segment, evaluate, blocks, runs }
    cli -> build -> { train, test, tools }

Those in the middle do not know each other nor how a program is called; train, test and tools do not know each other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

GROUND = {"utils", "tasks", "protocols"}
STORAGE = GROUND | {"io"}
MIDDLE = ("data", "loss", "models", "scan", "segment", "evaluate", "blocks", "runs")
BUILD = STORAGE | set(MIDDLE) | {"cli", "build"}
MAY_IMPORT = {
    "": {"build"},
    "utils": {"utils", "__version__"},
    "tasks": {"utils", "tasks"},
    "protocols": GROUND,
    "io": STORAGE,
    **{layer: STORAGE | {layer} for layer in MIDDLE},
    "cli": STORAGE | {"cli"},
    "build": BUILD,
    **{layer: BUILD | {layer} for layer in ("train", "test", "tools")},
    "__main__": {"utils", "__version__"},
}
FOR_NOW = {}
"""Modules that lie above what imports them, until what is shared has a room below."""

HEAVY = {
    *("cloudvolume", "tensorboardX", "ray", "neuroglancer", "matplotlib", "zarr", "tifffile"),
    *("taskqueue", "tensorstore", "waterz", "skimage", "cc3d", "fastremap", "bioimage_cpp", "edt"),
}
"""Packages that --help and most runs do without: imported inside the function that needs them."""


class Import(NamedTuple):
    """One imported name, dotted, and whether it is imported only when a function runs."""

    name: str
    line: int
    inside: bool


def imports(path: Path, root: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands; relative ones resolved, ``from a import b`` given as a.b."""
    package = path.relative_to(root).parts[:-1]

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            names: list[str] = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                start = ".".join([*base, *([child.module] if child.module else [])])
                names = [f"{start}.{alias.name}" for alias in child.names]
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(("import_module", "__import__")):
                names = [a.value for a in child.args[:1] if isinstance(a, ast.Constant)]
            for name in names:
                yield Import(name, child.lineno, inside)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            only_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from walk(child, inside or function or only_types)

    yield from walk(ast.parse(path.read_text()), False)


def layer_of(dotted: str) -> str:
    """The room that a dotted name of the package lies in; '' for the package itself."""
    return dotted.split(".")[1] if "." in dotted else ""


def sources(root: Path) -> list[Path]:
    found = sorted((root / "deepem").rglob("*.py"))
    assert found, "no sources found"
    return found


def forbidden_imports(root: Path) -> list[str]:
    """What imports against the arrows."""
    wrong = []
    for path in sources(root):
        parts = path.relative_to(root).with_suffix("").parts
        layer = layer_of(".".join(p for p in parts if p != "__init__"))
        for name, line, _ in imports(path, root):
            top = name.split(".")[0]
            if layer not in MAY_IMPORT:
                wrong.append(f"{path.relative_to(root)}: {layer} is no room of the house")
                continue
            against = top == "deepem" and layer_of(name) not in MAY_IMPORT[layer]
            against &= name.rpartition(".")[0] not in FOR_NOW.get(str(path.relative_to(root)), ())
            if against or top in ("scripts", "tests") or (top == "argparse" and layer in (*MIDDLE, "io")):
                wrong.append(f"{path.relative_to(root)}:{line} imports {name}")
    return wrong


def heavy_imports(root: Path) -> list[str]:
    """Heavy optional packages that are imported by importing deepem."""
    return [
        f"{path.relative_to(root)}:{line} imports {name}"
        for path in sources(root)
        for name, line, inside in imports(path, root)
        if name.split(".")[0] in HEAVY and not inside
    ]


def options_passed(root: Path) -> list[str]:
    """Functions of the middle rooms that take the options of a program."""
    wrong = []
    for path in sources(root):
        if layer_of(".".join(path.relative_to(root).with_suffix("").parts)) not in (*MIDDLE, "io"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arguments):
                for arg in (*node.posonlyargs, *node.args, *node.kwonlyargs):
                    annotation = ast.unparse(arg.annotation) if arg.annotation else ""
                    if arg.arg in ("opt", "opts", "options", "args") or "Namespace" in annotation:
                        wrong.append(f"{path.relative_to(root)}:{arg.lineno} takes {arg.arg}")
    return wrong


def test_imports_follow_the_arrows(root):
    assert forbidden_imports(root) == []


def test_what_may_be_imported_for_now_is(root):
    for file, modules in FOR_NOW.items():
        assert modules <= {name.rpartition(".")[0] for name, _, _ in imports(root / file, root)}, file


def test_heavy_packages_are_imported_where_they_are_used(root):
    assert heavy_imports(root) == []


def test_options_stay_with_the_programs(root):
    assert options_passed(root) == []


FLAG = re.compile(r"(?<![\w<-])--[a-z]\w+(?![\w ]*--)")
TALKS_TO_USERS = "deepem/data/dataset/"
"""Dataset modules tell users of the command line what to do about a label that is not there."""


def flags_named(root: Path) -> list[str]:
    """Texts and docstrings of the middle rooms and io that name a flag: their callers may know no command line."""
    wrong = []
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        if layer_of(".".join(path.relative_to(root).parts)) not in (*MIDDLE, "io") or name.startswith(TALKS_TO_USERS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and FLAG.search(node.value):
                wrong.append(f"{name}:{node.lineno} names {FLAG.search(node.value).group()}")
    return wrong


def test_library_code_names_parameters_and_no_flags(root):
    assert flags_named(root) == []


def test_a_flag_in_library_code_is_found(tmp_path):
    text = 'def f():\n    raise InputError("--overlap", 1, 2)\n'
    assert flags_named(house(tmp_path, "scan/grid.py", text)) == ["deepem/scan/grid.py:2 names --overlap"]
    assert flags_named(house(tmp_path, "scan/grid.py", 'def f():\n    """a --grow--> b."""\n')) == []
    assert flags_named(house(tmp_path, "train/run.py", 'X = "--overlap"')) == []


BROKEN = [
    ("utils/crop.py", "from deepem.tasks import Task"),
    ("tasks.py", "from deepem.data import emio"),
    ("data/target.py", "from deepem.loss import BCELoss"),
    ("data/loader.py", "import argparse"),
    ("io/files.py", "from deepem.data import emio"),
    ("io/views.py", "import argparse"),
    ("loss/voxel.py", "from ..data.target import make"),
    ("models/rsunet.py", "def create_model():\n    import deepem.scan.grid"),
    ("scan/grid.py", "from deepem.cli import words"),
    ("io/files.py", "from deepem.data import emio"),
    ("cli/parser.py", "from deepem.build import network"),
    ("build/network.py", "import deepem.train.loop"),
    ("train/run.py", "def main():\n    from deepem.test import forward"),
    ("train/run.py", "import importlib\nforward = importlib.import_module('deepem.test.forward')"),
    ("test/forward.py", "from deepem.train import step"),
    ("test/forward.py", "from scripts import figure"),
    ("tools/evaluate.py", "def main(words):\n    from deepem.test import forward"),
    ("tools/preview.py", "from deepem.test import forward"),
    ("train/run.py", "from deepem.tools import output"),
    ("blocks/worker.py", "from deepem.scan import grid"),
    ("__main__.py", "from deepem.train import run"),
    ("__init__.py", "from deepem.utils import crop"),
    ("network/core.py", "import torch"),
]


def house(tmp_path: Path, file: str, text: str) -> Path:
    path = tmp_path / "deepem" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(("file", "text"), BROKEN)
def test_an_import_against_the_arrows_is_found(tmp_path, file, text):
    assert len(forbidden_imports(house(tmp_path, file, text))) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train/run.py", "import argparse\nfrom deepem.scan import grid\nfrom deepem.cli import words"),
        ("test/forward.py", "from deepem import scan, tasks"),
        ("data/target.py", "from deepem.utils.edges import edge_views\nfrom . import emio"),
    ],
)
def test_an_import_along_the_arrows_is_not(tmp_path, file, text):
    assert forbidden_imports(house(tmp_path, file, text)) == []


def test_a_heavy_import_is_found_unless_a_function_makes_it(tmp_path):
    text = "import {0}\nif TYPE_CHECKING:\n    import {0}\ndef read():\n    import {0}"
    for name in ("tifffile", "matplotlib.pyplot"):
        assert heavy_imports(house(tmp_path, "data/emio.py", text.format(name))) == [
            f"deepem/data/emio.py:1 imports {name}"
        ]


def test_an_options_object_is_found(tmp_path):
    assert len(options_passed(house(tmp_path, "data/loader.py", "def load(options): ..."))) == 1
    assert len(options_passed(house(tmp_path, "data/loader.py", "def load(o: argparse.Namespace): ..."))) == 1
    assert options_passed(house(tmp_path, "data/loader.py", "def load(*args, sizes): ...")) == []
    assert options_passed(house(tmp_path, "train/run.py", "def train(options): ...")) == []
