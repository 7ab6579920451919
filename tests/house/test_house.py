"""What lies where, how it is named and how long it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

VISIBLE = {
    *("deepem", "experiments", "scripts", "tests"),
    *("setup.py", "README.md", "LICENSE", "constraints.txt"),
}
LINES, STATEMENTS = 300, 40
TOLERANCE = 1.1  # "about"
MACHINE = re.compile(r"(?<![\w.$}])/(home|Users|root|work|tmp|private|scratch)/[\w.-]{2,}")


@pytest.fixture(scope="module")
def tracked(root) -> list[Path]:
    """The files that a clone has, relative to the root."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [Path(line) for line in listed.stdout.splitlines() if (root / line).is_file()]
    assert files
    return files


def not_in_the_plan(files: Iterable[Path]) -> set[str]:
    """Visible entries of the top level that are missing or too many."""
    return {path.parts[0] for path in files if not path.parts[0].startswith(".")} ^ VISIBLE


def shadowing(files: Iterable[Path]) -> list[str]:
    """Files and folders beside the programs that hide a module: `python deepem/train/run.py` finds them first."""
    hidden = set(sys.stdlib_module_names) | {"deepem", "torch", "numpy", "scipy", "h5py", "tqdm", "pytest"}
    return [
        str(path)
        for path in files
        if path.parts[:1] == ("deepem",) and path.parts[1] in ("train", "test", "tools") and path.suffix == ".py"
        if {path.stem, path.parts[2]} & hidden
    ]


def too_long(path: Path) -> list[str]:
    """Files above the line limit, functions above the statement limit (docstrings and inner functions apart)."""
    text = path.read_text()
    found = []
    if (lines := text.count("\n")) > LINES * TOLERANCE:
        found.append(f"{path}: {lines} lines")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = sum(statements(child) for child in node.body) - (ast.get_docstring(node) is not None)
            if count > STATEMENTS * TOLERANCE:
                found.append(f"{path}:{node.lineno} {node.name}: {count} statements")
    return found


def statements(node: ast.AST) -> int:
    """Statements of a node, itself included; a function or class inside counts as one."""
    own = isinstance(node, ast.stmt)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return own
    return own + sum(statements(child) for child in ast.iter_child_nodes(node))


def prints(path: Path) -> list[str]:
    """Calls of print."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return [f"{path}:{c.lineno}" for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def machine_paths(text: str) -> list[str]:
    """Absolute paths of somebody's machine in a text."""
    return [match.group() for match in MACHINE.finditer(text)]


def python(root: Path, *folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]


def test_the_top_level_is_as_planned(tracked):
    assert not_in_the_plan(tracked) == set()


def test_no_file_beside_the_programs_hides_a_module(tracked):
    assert shadowing(tracked) == []


def test_files_and_functions_are_short(root):
    assert [found for path in python(root, "deepem", "scripts") for found in too_long(path)] == []


def test_only_scripts_print(root):
    assert [found for path in python(root, "deepem") for found in prints(path)] == []


def test_no_file_names_a_path_of_a_machine(root, tracked):
    own = Path(__file__).resolve().relative_to(root)
    found = []
    for path in tracked:
        try:
            text = (root / path).read_text() if path != own else ""
        except UnicodeDecodeError:
            continue
        found += [f"{path}: {name}" for name in (*machine_paths(text), *([root] if str(root) in text else []))]
    assert found == []


def test_every_test_file_has_its_own_name(tracked):
    """Test folders are no packages, so pytest tells files apart by name."""
    names = [path.name for path in tracked if path.parts[0] == "tests" and path.name.startswith("test_")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_what_is_not_in_the_plan_is_found():
    plan = [Path(name) / "x" for name in VISIBLE]
    assert not_in_the_plan([*plan, Path(".ruff.toml"), Path(".ci/run")]) == set()
    assert not_in_the_plan([*plan, Path("notes.md")]) == {"notes.md"}
    assert not_in_the_plan(plan[1:]) == {plan[0].parts[0]}


@pytest.mark.parametrize(
    "name", ["train/logging.py", "test/queue.py", "train/io/read.py", "test/torch.py", "tools/queue.py"]
)
def test_a_hiding_name_is_found(name):
    assert shadowing([Path("deepem") / name]) == [f"deepem/{name}"]
    assert shadowing([Path("deepem/data/queue.py"), Path("deepem/train/logger.py"), Path("deepem/test/t/a.py")]) == []


def test_a_long_file_and_a_long_function_are_found(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("x = 1\n" * 400)
    assert too_long(path) == [f"{path}: 400 lines"]
    inner = "    def g():\n" + "        y = 1\n" * 30
    path.write_text('def f():\n    """Doc."""\n' + "    x = 1\n" * 30 + inner)
    assert too_long(path) == []
    path.write_text("def f():\n    if x:\n" + "        x = 1\n" * 50)
    assert too_long(path) == [f"{path}:1 f: 51 statements"]


def test_a_print_is_found(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("def f():\n    print('x')\n    log.print('y')\n")
    assert prints(path) == [f"{path}:2"]


def test_a_path_of_a_machine_is_found():
    assert machine_paths("data in /home/ana/volumes or /Users/bo") == ["/home/ana", "/Users/bo"]
    assert machine_paths("gs://bucket/work/a, $HOME/tmp/x, /data/volume, ./root/x, deepem/work/a") == []
