"""The command line `deepem VERB`: every verb can be called, --help shows them all, and a wrong word is one line."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import deepem
from deepem import __main__ as command

FLAGS = {
    "train": "--data --aff --max_iter",
    "forward": "--test_ids --gs_input",
    "segment": "--out --decoder --threshold --block --min_size --mask --edges --edge_direction --again",
    "evaluate": "--truth --mask --segment --json",
    "view": "--kind --layout --voxel_size --position --zoom --state --screenshot --window --host --port",
    "check": "--out --json",
    "report": "--out",
    "preview": "--out --samples --sections --phase",
    "run": "--point --slurm --sbatch --table",
    "suggest": "--predictions --out --by --count --size --context --distance --diverse --checkpoint",
    "convert": "--out --program",
    "summary": "--model --fov --voxel_size_nm --in_channels --channels --batch_size",
    "export": "--exp_name --chkpt_num --best --raw --out --bundle --name --licence --example",
    "fetch": "--out --table --model --patience --list",
    "synthesize": "--layout --data_dir --ids --size",
    "prepare": "--files --urls --sha256 --id --classes --data_dir --voxel_size --pad --val --licence",
    "prepare cremi": "--samples --hdf --url --sha256 --data_dir --glia_ids --pad --licence",
    "queue plan": "--plan --task_size --voxels_per_s --price",
    "queue enqueue": "--plan --queue --verify",
    "queue work": "--queue --lease --stay",
    "queue status": "--plan --queue --verify --json",
    "help": "config conventions formats errors cluster publish python flags migrate",
}
HEAVY = ("torch", "cv2", "h5py", "scipy", "cloudvolume")


def run(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **more)


def code_of(words: list[str]) -> int:
    """The exit code of a verb, however it ends."""
    try:
        return command.main(words)
    except SystemExit as end:
        return int(end.code or 0)


def test_the_table_and_these_tests_name_the_same_verbs():
    assert set(FLAGS) == set(command.VERBS)


@pytest.mark.parametrize("name", command.VERBS)
def test_a_verb_is_a_module_with_a_main_that_takes_the_words(name):
    main = importlib.import_module(command.VERBS[name].module).main
    assert list(inspect.signature(main).parameters) == ["words"]


@pytest.mark.parametrize("name", command.VERBS)
def test_a_verb_keeps_its_flags(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["deepem"])
    assert code_of([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out.split()
    assert set(FLAGS[name].split()) <= {word.strip("[],") for word in shown}


def test_help_is_one_screen_with_a_line_for_each_verb(capsys):
    assert command.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for name, verb in command.VERBS.items():
        assert [line.split(maxsplit=len(name.split()))[-1] for line in lines if line.startswith(f"  {name}  ")] == [
            verb.help
        ]


def test_help_of_a_group_shows_its_verbs_alone(capsys):
    assert command.main(["queue", "--help"]) == 0
    verbs = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert verbs == ["queue"] * 4


def test_without_words_the_help_goes_to_stderr(capsys):
    assert command.main([]) == 2
    assert capsys.readouterr() == ("", command.overview())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "verb: got trian, wants train, which is nearest, or one of: train, forward, segment"),
        (["xyzzy", "--data", "d"], "verb: got xyzzy, wants one of: train, forward, segment"),
        (["--data", "d"], "verb: got --data, wants one of: train"),
        (["queue"], "verb: got queue alone, wants one of: queue plan, queue enqueue, queue work, queue status\n"),
        (["queue", "stat"], "verb: got queue stat, wants queue status, which is nearest, or one of: queue plan, queue"),
    ],
)
def test_a_word_that_is_no_verb_is_one_line_with_the_nearest_and_all(capsys, words, line):
    assert command.main(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"deepem: error: {line}")
    assert err.count("\n") == 1


def test_the_version_has_one_source(root, capsys):
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"deepem {deepem.__version__}\n"
    code = "import sys; sys.modules['torch'] = sys.modules['deepem'] = None; sys.argv[1:] = ['--version']; import setup"
    done = run("-c", code, cwd=root)
    assert done.stdout.split()[-1:] == [deepem.__version__], done.stderr


def test_help_imports_nothing_heavy(root):
    for name in (
        "--help",
        "summary --help",
        "export --help",
        "preview --help",
        "queue work --help",
        "segment --help",
        "evaluate --help",
        "report --help",
        "view --help",
    ):
        code = f"import sys; from deepem.__main__ import main\ntry: main({name.split()})\nexcept SystemExit: pass\n"
        done = run("-c", f"{code}assert not set(sys.modules) & {set(HEAVY)}", cwd=root)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["module in the checkout", "folder from elsewhere"])
def test_a_bare_clone_has_all_verbs(root, tmp_path, how):
    start = {
        "module in the checkout": (["-m", "deepem"], root),
        "folder from elsewhere": ([str(root / "deepem")], tmp_path),
    }
    words, folder = start[how]
    done = run(*words, "evaluate", "a.h5", "--truth", "b.h5", cwd=folder, env={"PATH": ""})
    assert done.returncode == 2
    assert done.stderr == "deepem evaluate: error: a.h5: got no such volume, wants a file that is there\n"


def test_exit_codes_are_those_of_the_verb(monkeypatch):
    from deepem.tools import queue_status

    for code in (0, 1, None):
        monkeypatch.setattr(queue_status, "main", lambda words, code=code: code)
        assert command.main(["queue", "status"]) == (code or 0)
