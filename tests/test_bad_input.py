"""Bad input: one line that names the flag or file, what it got and what it wants; exit code 2; nothing half-written.

Every case runs the program in a process of its own. All but a few are forked from one that has imported torch, which
takes seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from lab import Lab

MODULE = '''"""Our cut-outs: every file of an id's folder."""
from pathlib import Path

import h5py
import numpy as np

data_info = {names}


def read(file):
    return np.load(file) if file.suffix == ".npy" else h5py.File(file)["main"][()]


def load_data(data_dir, data_ids=None, **kwargs):
    return {{i: {{f.stem: read(f) for f in (Path(data_dir) / i).iterdir()}} for i in data_ids or data_info}}
'''

FORKS = """
import json, os, runpy, shutil, sys, traceback
import tensorboardX, torch, tqdm
import deepem.test.job, deepem.train.session, deepem.train.logger, deepem.train.render

torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # imports more, once and for all
usage = shutil.disk_usage
for line in sys.stdin:
    case = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code = 1
    try:
        os.chdir(case["cwd"])
        for number in (1, 2):
            os.dup2(os.open(f"{case['log']}.{number}", os.O_WRONLY | os.O_CREAT), number)
        if case["free"] is not None:
            shutil.disk_usage = lambda path: usage(path)._replace(free=case["free"])
        sys.argv = case["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""

Change = Callable[[Path], Any]


@dataclass
class Done:
    """What a program left behind: its exit code and what it wrote to stderr."""

    code: int
    err: str


Program = Callable[..., Done]


@pytest.fixture(scope="module")
def program(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Runs a program of the repository with some words in a folder."""
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FORKS]
    log = tmp_path_factory.mktemp("logs")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdin
        assert parent.stdout
        count = 0

        def run(file: str, words: list[str], cwd: Path, free: int | None = None) -> Done:
            nonlocal count
            count += 1
            argv = [str(root / file), *words]
            case = {"argv": argv, "cwd": str(cwd), "log": str(log / str(count)), "free": free}
            parent.stdin.write(json.dumps(case) + "\n")
            parent.stdin.flush()
            code = int(parent.stdout.readline())
            return Done(code, (log / f"{count}.2").read_text())

        yield run
        parent.stdin.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, program: Program) -> Lab:
    """A lab with good volumes a, b, c, one broken volume per case, and a run of two iterations."""
    lab = Lab.with_dataset(tmp_path_factory.mktemp("lab") / "lab")
    image, ids = (np.load(lab.data / "a" / f"{key}.npy") for key in ("img", "seg"))
    nan = (image / 255).astype(np.float32)
    nan[5, 6, 7] = np.nan
    negative = ids.astype(np.int32)
    negative[0, 0, 0] = -2
    broken: dict[str, dict[str, np.ndarray]] = {
        "small": {"img": image[:4], "seg": ids[:4]},
        "shapes": {"img": image, "seg": ids[:, :-1]},
        "masked": {"img": image, "seg": ids, "msk": np.ones((3, 3, 3), np.uint8)},
        "float": {"img": image, "seg": ids.astype(np.float32)},
        "negative": {"img": image, "seg": negative},
        "halves": {"img": image, "seg": ids, "mit": np.full(ids.shape, 0.5)},
        "nan": {"img": nan, "seg": ids},
        "range": {"img": nan[:, :, :3].repeat(18, 2) * 300, "seg": ids},
        "flat": {"img": image[0], "seg": ids[0]},
        "hidden": {"img": image, "seg": ids, "msk": np.zeros_like(image)},
        "unlabelled": {"img": image},
        "empty": {"seg": ids},
    }
    for name, arrays in broken.items():
        for key, array in arrays.items():
            lab.array(name, key, array)
        if name in ("masked", "hidden"):
            np.save(lab.data / name / "loc.npy", np.array(True))
    lab.module.write_text(MODULE.format(names=["a", "b", "c", *broken, "cut", "gone"]))
    modules = {
        "nothing": "data_info = ['a']\n",
        "absent": "data_info = ['a']\ndef load_data(data_dir, data_ids=None, **_):\n    open('no_such_volume.raw')\n",
        "blank": "data_info = ['a']\ndef load_data(data_dir, data_ids=None, **_): ...\n",
        "clash": "data_info = ['a']\ndef load_data(data_dir, data_ids=None, *, lr: float = 1.0): ...\n",
    }
    for name, text in modules.items():
        (lab.module.parent / f"{name}.py").write_text(text)
    (lab.module.parent / "apostrophe.args").write_text("--lr 0.1\n--exp_name don't\n")
    (lab.module.parent / "latin.args").write_bytes(b"--exp_name caf\xe9\n")
    done = program("deepem/train/run.py", words(lab, "--train_ids a b --max_iter 2"), lab.cwd)
    assert done.code == 0, done.err
    for name, array in (("img", image), ("small", image[:4]), ("nan", nan), ("two", np.stack([image] * 2))):
        (lab.data / "t").mkdir(exist_ok=True)
        with h5py.File(lab.data / "t" / f"{name}.h5", "w") as top:
            top["main"] = array
    whole = (lab.data / "t" / "img.h5").read_bytes()
    for name in ("t", "cut"):
        (lab.data / name).mkdir(exist_ok=True)
        (lab.data / name / "cut.h5").write_bytes(whole[:2000])
    (lab.data / "t" / "text.h5").write_text("no volume")
    with h5py.File(lab.data / "t" / "other.h5", "w") as top:
        top["volumes/raw"] = image
    return lab


def words(lab: Lab, more: str) -> list[str]:
    """A command line of training that works, and more, which wins."""
    own = f"--data {lab.module} --data_dir {lab.data} --exp_name run --aff 1 --cpu"
    small = "--fov 8,32,32 --width 4 8 --eval_iter 1 --num_workers 0 --val_ids c"
    return f"{own} {small} {more}".split()


def contents(*folders: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file under some folders, with its time and its bytes."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and file.name != ".lock"]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@dataclass
class Case:
    """A command line that cannot work.

    Attributes:
        words: What is wrong with it, in words added to a good one.
        where: What the line must name: a flag or a file.
        got: What it must say that it got.
        wants: What it must say that it wants.
        change: What happens to the folder before.
        free: Bytes that the disk has left.
    """

    words: str
    where: str
    got: str
    wants: str
    change: Change | None = None
    free: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def truncate(pattern: str) -> Change:
    """Cuts a file off in the middle."""

    def change(cwd: Path) -> None:
        (file,) = cwd.glob(pattern)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return change


def corrupt(pattern: str) -> Change:
    """Turns a byte in the middle of the largest tensor of a checkpoint: between tensors lie bytes of no meaning."""

    def change(cwd: Path) -> None:
        (file,) = cwd.glob(pattern)
        data = bytearray(file.read_bytes())
        with zipfile.ZipFile(file) as archive:
            record = max(archive.infolist(), key=lambda info: info.file_size)
        name, extra = struct.unpack_from("<HH", data, record.header_offset + 26)
        data[record.header_offset + 30 + name + extra + record.file_size // 2] ^= 255
        file.write_bytes(data)

    return change


def replace(pattern: str, text: str) -> Change:
    """Puts other bytes in a file's place."""

    def change(cwd: Path) -> None:
        (file,) = cwd.glob(pattern)
        file.write_text(text)

    return change


NEW = "--train_ids a --exp_name new --max_iter 1 "
CHECKPOINT = "experiments/run/models/model2.chkpt"
TRAIN = {
    "no data": Case("--data", "--data", "nothing", ""),
    "unknown dataset": Case("--data cremi_z", "--data cremi_z", "no such module", "synthetic"),
    "unknown file": Case("--data code/no.py", "--data code/no.py", "no such module", "a file"),
    "unknown model": Case(NEW + "--model unet9", "--model unet9", "no such module", "rsunet"),
    "unknown sampler": Case(NEW + "--sampler best", "--sampler best", "no such module", "basic"),
    "unknown augment": Case(NEW + "--augment most", "--augment most", "no such module", "grayscale_warping"),
    "unknown modifier": Case(NEW + "--modifier crop3x", "--modifier crop3x", "no such module", "crop2x"),
    "module without its function": Case(
        "--data {code}/nothing.py", "--data {code}/nothing.py", "without load_data", "load_data(data_dir"
    ),
    "module that finds no file": Case(
        "--data {code}/absent.py --train_ids a --val_ids a", "--data {code}/absent.py", "no_such_volume.raw", ""
    ),
    "module that gives no volumes": Case(
        "--data {code}/blank.py --train_ids a --val_ids a", "--data {code}/blank.py", "None from load_data", "id ->"
    ),
    "a module twice": Case(
        "--data {code}/cortex.py {code}/../code/cortex.py", "--data", "which are one module", "each module once"
    ),
    "a dot for a module": Case("--data .", "--data .", "no such module", "synthetic"),
    "flag of two owners": Case("--data {code}/clash.py --train_ids a", "clash.py", "--lr", "another name"),
    "unknown flag": Case(NEW + "--max_itr 5", "--max_itr", "an unknown flag", ""),
    "abbreviated flag": Case(NEW + "--max_it 5", "--max_it", "an unknown flag", ""),
    "flag of another module": Case(NEW + "--synth_size 9,9,9", "--synth_size", "no chosen module", "synthetic"),
    "word without a flag": Case(NEW + "--lr 0.1 0.2", "0.2", "no flag", ""),
    "word behind a public flag": Case(NEW + "--recompute stray", "stray", "no flag", ""),
    "unknown id": Case("--train_ids a z", "--train_ids", "z", "one of a, b, c"),
    "unknown evaluation id": Case("--train_ids a --val_ids z", "--val_ids", "z", "one of a, b, c"),
    "unknown task": Case(NEW + "--axon 1", "--axon", "an unknown flag", ""),
    "no task": Case(NEW + "--aff 0", "task", "none", "--aff, --long"),
    "a task twice": Case(NEW + "--syn 1 --psd 1", "--syn", "--psd", "synapse"),
    "long range without edges": Case(NEW + "--long 1", "--edges", "none", "z,y,x"),
    "a task without labels": Case(NEW + "--mye 1", "--mye", "no label for myelin", "mye"),
    "an unlabelled volume": Case(NEW + "--train_ids unlabelled", "--aff", "no label for affinity", "seg"),
    "too few probabilities": Case(
        "--train_ids a b --train_prob 1 --exp_name new", "--train_prob", "1 number", "2, one for each of a, b"
    ),
    "too many probabilities": Case("--train_ids a --train_prob 1 2", "--train_prob", "2 numbers", "1, one for"),
    "a probability of zero": Case("--train_ids a b --train_prob 1 0", "--train_prob", "0", "above 0"),
    "a negative probability": Case("--train_ids a b --train_prob 1 -0.5", "--train_prob", "-0.5", "above 0"),
    "a probability that is no number": Case("--train_ids a b --train_prob 1 nan", "--train_prob", "nan", "above 0"),
    "a label of another shape": Case(NEW + "--train_ids shapes", "shapes seg", "(12, 48, 54)", "(12, 49, 54)"),
    "a mask of another shape": Case(NEW + "--train_ids masked", "masked msk", "(3, 3, 3)", "(12, 49, 54)"),
    "float ids": Case(NEW + "--train_ids float", "float seg", "float32", "whole numbers"),
    "negative ids": Case(NEW + "--train_ids negative", "negative seg", "-2", "whole numbers"),
    "fractions as classes": Case(NEW + "--mit 1 --train_ids halves", "halves mit", "float64", "whole numbers"),
    "NaN in the image": Case(NEW + "--train_ids nan", "nan img", "NaN", "a grey value"),
    "grey values out of range": Case(NEW + "--train_ids range", "range img", "", "in [0, 1]"),
    "a flat image": Case(NEW + "--train_ids flat", "flat img", "(49, 54)", "(Z, Y, X)"),
    "no image": Case(NEW + "--train_ids empty", "empty", "seg", "img"),
    "a mask without voxels": Case(NEW + "--train_ids hidden", "hidden", "no voxel of the mask", ""),
    "a volume that is not there": Case(NEW + "--train_ids gone", "cortex.py", "gone: No such file", ""),
    "a truncated volume": Case(NEW + "--train_ids cut", "cortex.py", "truncated file", ""),
    "a patch larger than the volume": Case(NEW + "--train_ids small", "small", "(8, 32, 32)", "(4, 49, 54)"),
    "a patch larger than every volume": Case(NEW + "--fov 64,64,64", "a", "(64, 64, 64)", "(12, 49, 54)"),
    "a patch larger for evaluation": Case(NEW + "--val_ids small", "small", "(8, 32, 32)", "(4, 49, 54)"),
    "a patch that pooling does not divide": Case(NEW + "--fov 8,33,32", "--fov", "8,33,32", "y = 32 or 34"),
    "an output smaller than what the model gives": Case(NEW + "--outputsz 4,16,16", "--outputsz", "4,16,16", "8,32,32"),
    "an output that is not centred": Case(
        NEW + "--model rsunet_act --outputsz 4,15,16", "--outputsz", "4,15,16", "even sizes where 8,32,32 is even"
    ),
    "an edge longer than the patch": Case(NEW + "--long 1 --edges 9,0,0", "--edges", "9,0,0", "shorter than"),
    "an id twice": Case("--train_ids a a", "--train_ids", "a twice", "each id once"),
    "an id twice, written in two ways": Case(
        "--train_ids a cortex/a", "--train_ids", "a and cortex/a, which are one id", "each id once"
    ),
    "a patch of two numbers": Case(NEW + "--fov 8,32", "--fov", "8,32", "z,y,x"),
    "a width that groups do not divide": Case(NEW + "--width 6 12 --group 4", "--group", "4", "6"),
    "an unknown optimiser": Case(NEW + "--optim Adamant", "--optim", "Adamant", "Adam"),
    "an unknown loss": Case(NEW + "--loss L1", "--loss", "L1", "BCELoss, MSELoss"),
    "an unknown activation": Case(NEW + "--act Swoosh", "--act", "Swoosh", "ReLU"),
    "a learning rate of zero": Case(NEW + "--lr 0", "--lr", "0", "above 0"),
    "a count that is no number": Case(NEW + "--max_iter many", "--max_iter", "many", "whole number"),
    "an edge of nothing": Case(NEW + "--long 1 --edges 0,0,0", "--edges", "0,0,0", "an edge"),
    "no such GPU": Case(NEW + "--gpu_ids 7", "--gpu_ids", "7", "CUDA", options={"cpu": False}),
    "no file of arguments": Case("@no.args", "@no.args", "No such file", "arguments"),
    "an apostrophe in a file of arguments": Case(
        "@{code}/apostrophe.args", "apostrophe.args, line 2", "--exp_name don't", "quote closed"
    ),
    "a file of arguments in Latin-1": Case("@{code}/latin.args", "latin.args, line 1", "0xe9", "UTF-8"),
    "other options than the run there": Case(
        "--train_ids a b --lr 0.5 --max_iter 4", "experiments/run", "--lr was 0.001, is 0.5", "--exp_name"
    ),
    "other volumes than the run there": Case(
        "--train_ids a --max_iter 4", "experiments/run", "--train_ids was", "--exp_name"
    ),
    "another network than the run there": Case(
        "--train_ids a b --width 4 6 --max_iter 4", "experiments/run", "--width was [4, 8]", "--exp_name"
    ),
    "a checkpoint that is not there": Case(
        "--train_ids a b --chkpt_num 7 --max_iter 9", "model7.chkpt", "no such file", "2"
    ),
    "a truncated checkpoint": Case(
        "--train_ids a b --chkpt_num 2 --max_iter 4", CHECKPOINT, "truncated", "a checkpoint", truncate(CHECKPOINT)
    ),
    "a damaged checkpoint": Case(
        "--train_ids a b --chkpt_num 2 --max_iter 4", CHECKPOINT, " file (", "a checkpoint", corrupt(CHECKPOINT)
    ),
    "no readable checkpoint": Case(
        "--train_ids a b --max_iter 4",
        "experiments/run/models",
        "none readable",
        "--exp_name",
        replace(CHECKPOINT, "no"),
    ),
    "no such weights to start from": Case(NEW + "--pretrain no.chkpt", "no.chkpt", "no such file", "a checkpoint"),
    "too little disk": Case(NEW, "experiments/new/models", "0 MiB", "for the next checkpoint", free=1000),
    "too little disk to go on": Case(
        "--train_ids a b --max_iter 4", "experiments/run/models", "0 MiB", "for the next", free=1000
    ),
}
FORWARD = {
    "no experiment": Case("--exp_name", "--exp_name", "nothing", ""),
    "unknown experiment": Case("--exp_name no", "--exp_name no", "no readable checkpoint", "experiment"),
    "no ids": Case("--test_ids", "--test_ids", "nothing", ""),
    "unknown id": Case("--test_ids z", "z/img.h5", "", ""),
    "unknown flag": Case("--overlapp 0,0,0", "--overlapp", "an unknown flag", ""),
    "a checkpoint that is not there": Case("--chkpt_num 7", "model7.chkpt", "no such file", "2"),
    "a truncated checkpoint": Case("--chkpt_num 2", CHECKPOINT, "truncated", "a checkpoint", truncate(CHECKPOINT)),
    "a damaged checkpoint": Case("--chkpt_num 2", CHECKPOINT, " file (", "a checkpoint", corrupt(CHECKPOINT)),
    "no readable checkpoint": Case("", "--exp_name run", "no readable checkpoint", "", truncate(CHECKPOINT)),
    "a checkpoint of other widths": Case("--width 4 16", CHECKPOINT, "another shape (", "the same architecture"),
    "a checkpoint of another network": Case(
        "--model updown --width 4 8 16", CHECKPOINT, "missing (", "the same architecture"
    ),
    "a checkpoint without that task": Case("--aff --mit", CHECKPOINT, "mitochondria", "the same architecture"),
    "a volume smaller than the patch": Case("--input_name small.h5", "", "(4, 49, 54)", "(8, 32, 32)"),
    "a truncated volume": Case("--input_name cut.h5", "cut.h5", "truncated", "a whole HDF5 file"),
    "a volume that is none": Case("--input_name text.h5", "text.h5", "cannot be read", "a whole HDF5 file"),
    "another dataset inside": Case("--input_name other.h5", "other.h5", "no dataset 'main'", "volumes/raw"),
    "a volume of two channels": Case("--input_name two.h5", "two.h5", "2 channels", "1"),
    "NaN in the image": Case("--input_name nan.h5", "nan.h5", "no numbers", "finite"),
    "an unknown suffix": Case("--input_name img.bin", "img.bin", "", ".h5"),
    "an unknown blend": Case("--blend best", "--blend", "best", "bump"),
    "an unknown bump": Case("--bump best", "--bump", "best", "zung"),
    "an overlap of everything": Case("--overlap 8,32,32", "--overlap", "32", ""),
    "no such GPU": Case("--gpu_id 7", "--gpu_id", "7", "CUDA", options={"cpu": False}),
}


def one_line(done: Done, prog: str, case: Case, code: str) -> None:
    """The error is the last line, of the usual form, about the right thing; nothing of Python shows."""
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert "usage:" not in done.err
    last = done.err.splitlines()[-1]
    found = re.fullmatch(rf"{prog}: error: (.+?): got (.+), wants (.+)", last)
    assert found, last
    for part, text in zip((case.where, case.got, case.wants), found.groups(), strict=True):
        assert part.format(code=code) in text, last


def attempt(file: str, case: Case, lab: Lab, line: list[str], cwd: Path, program: Program) -> None:
    """Run a case in a folder of its own that holds the run, and see that it changes nothing there."""
    if not case.options.get("cpu", True):
        if torch.cuda.device_count() > 7:
            pytest.skip("there is a GPU of this number")
        line = [word for word in line if word != "--cpu"]
    shutil.copytree(lab.cwd / "experiments", cwd / "experiments")
    if case.change is not None:
        case.change(cwd)
    before = contents(cwd, lab.data)
    done = program(file, line, cwd, case.free)
    one_line(done, Path(file).name, case, str(lab.module.parent))
    assert contents(cwd, lab.data) == before
    assert {path.name for path in cwd.iterdir()} == {"experiments"}
    assert {path.name for path in (cwd / "experiments").iterdir()} == {"run"}


@pytest.mark.parametrize("case", TRAIN.values(), ids=TRAIN)
def test_training(lab: Lab, program: Program, tmp_path: Path, case: Case) -> None:
    line = words(lab, case.words.format(code=lab.module.parent))
    attempt("deepem/train/run.py", case, lab, line, tmp_path, program)


@pytest.mark.parametrize("case", FORWARD.values(), ids=FORWARD)
def test_forward(lab: Lab, program: Program, tmp_path: Path, case: Case) -> None:
    line = f"--exp_name run --data_dir {lab.data} --test_ids t --cpu {case.words}".split()
    attempt("deepem/test/forward.py", case, lab, line, tmp_path, program)


def test_good_input_passes(lab: Lab, program: Program, tmp_path: Path) -> None:
    """The command lines that the cases add to do work."""
    shutil.copytree(lab.cwd / "experiments", tmp_path / "experiments")
    done = program("deepem/train/run.py", words(lab, "--train_ids a b --max_iter 3"), tmp_path)
    assert done.code == 0, done.err
    done = program("deepem/train/run.py", words(lab, NEW), tmp_path)
    assert done.code == 0, done.err
    line = f"--exp_name run --data_dir {lab.data} --test_ids t --cpu --chkpt_num 2".split()
    done = program("deepem/test/forward.py", line, tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "experiments/run/forward/t_affinity_2.h5").is_file()


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (["deepem/train/run.py", "--data", "cremi_z", "--aff", "1"], "run.py: error: --data cremi_z"),
        (["-m", "deepem.test.forward", "--exp_name", "no", "--test_ids", "t1"], "forward.py: error: --exp_name no"),
    ],
)
def test_as_typed(root: Path, command: list[str], where: str) -> None:
    """Without a parent that has imported everything."""
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"{where}: got ")
