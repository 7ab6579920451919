"""`deepem report`: a page says what a run was, whatever its folder lacks, and needs nothing else to be read."""

from __future__ import annotations

import html
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import h5py
import numpy as np
import pytest
from lab import Lab

from deepem.tools import report, run_record
from deepem.utils import checkpoint

HACK = "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1>&amp;"
"""A text that would run in a page that does not escape it."""

SCORES = [
    {
        "file": "exp/forward/c_affinity_12.h5", "output": "affinity", "truth": "data/c/seg.h5",
        "cut_edges": {"average_precision": 0.41234, "by_edge": {"0,0,1": 0.25}, "share": {"0,0,1": 0.1}},
        "segmentation": {
            "agglomerate": {"error": 0.125, "split": 1.5, "threshold": 0.3, "segments": 1234, "own_truth": True}
        },
        "curves": {"agglomerate": [{"error": 0.98765}]},
    }
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with a short run `exp`, its output, scores and a picture; and a run `other` with another learning rate."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        lab = Lab.with_network(folder, monkeypatch)
        lab.train("exp", "--max_iter", 12, "--imgs_intv", 6, "--lr", 0.002)
        lab.train("other", "--max_iter", 8, "--lr", 0.004)
    run = folder / "experiments" / "exp"
    (run / "forward").mkdir()
    made = {"version": "9.8.7", "commit": "abcdef0123", "host": "elsewhere", "checkpoint": "a/models/model12.chkpt",
            "checkpoint_sha256": "0123456789", "command": "/x/deepem/__main__.py forward --exp_name exp"}  # fmt: skip
    with h5py.File(run / "forward" / "c_affinity_12.h5", "w") as file:
        file["main"] = np.zeros((3, 4, 5, 6), np.float32)
        file["main"].attrs.update(axes="czyx", tasks=["aff"], values="probability", provenance=json.dumps(made))
    (run / "forward" / "broken.h5").write_bytes(b"no file of this kind")
    (run / "scores").mkdir()
    (run / "scores" / "c.json").write_text(json.dumps(SCORES))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with browser.started() as found:
        yield found


@pytest.fixture
def lab(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, and the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(*words: str) -> str:
    """The page that a command line writes."""
    assert report.main(list(words)) == 0
    runs = [word for word in words if not word.startswith("-")]
    return Path("experiments", runs[0] if len(runs) == 1 else "", "report.html").read_text()


def told(text: str) -> str:
    """What one reads on a page."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_the_page_says_what_was_trained_on_what_and_with_which_result(lab: Path) -> None:
    text = told(page("exp"))
    lead = "Affinity and mitochondria from data: trained on a and b, evaluated on c. Complete: 12 of 12 iterations"
    assert lead in text
    state = checkpoint.read(lab / "experiments/exp/models/model12.chkpt")
    weights = {k: v for k, v in state["state_dict"].items() if "running" not in k and "num_batches" not in k}
    assert f"parameters {sum(v.numel() for v in weights.values()):,} net.py" in text
    assert "--aff affinity 1.0 3 --mit mitochondria 0.5 1" in text
    made = state["provenance"]
    for known in (made["commit"], made["torch"], made["python"], made["host"], "seed 0"):
        assert known in text
    rows = [json.loads(row) for row in (lab / "experiments/exp/logs/metrics.jsonl").read_text().splitlines()]
    tested = [row for row in rows if row["phase"] == "test"]
    best = min(tested, key=lambda row: row["loss"])
    assert f"best test loss {best['loss']:#.4g} at iteration {best['iter']}" in text
    assert f"train {[r for r in rows if r['phase'] == 'train'][-1]['affinity']:#.4g} test" in text


def test_options_other_than_the_default_come_first_with_the_default_beside(lab: Path) -> None:
    text = told(page("exp"))
    changed, rest = text.split("All options")
    first = changed.split("Other than the default")[1]
    assert "--lr 0.002 0.001 learning rate" in first
    assert "--fov 4,12,12 none" in first
    assert "--optim " not in changed
    assert "--optim Adam Adam" in rest
    assert "--outputsz 4,12,12 none" in first.split("Filled in by the run")[1]
    assert "flags of modules outside deepem, and of other versions" in rest
    assert "--norm batch" in rest


def test_scores_outputs_and_commands_are_there(lab: Path) -> None:
    text = told(page("exp"))
    assert "AP of cut edges \N{UPWARDS ARROW} 0.4123 edge 0,0,1 \N{UPWARDS ARROW} 0.2500" in text
    assert "agglomerate adapted Rand error \N{DOWNWARDS ARROW} 0.1250" in text
    assert "segments 1,234 threshold chosen by this truth itself: flatters" in text
    assert "0.98765" not in text  # curves are no scores
    assert "forward/c_affinity_12.h5 aff, probability 3\N{MULTIPLICATION SIGN}4\N{MULTIPLICATION SIGN}5" in text
    assert "model12.chkpt sha256 01234567 deepem 9.8.7, abcdef0, on elsewhere" in text
    assert "forward/broken.h5 cannot be read: InputError" in text
    assert "deepem train --config experiments/exp/options.yaml --exp_name exp_again" in text
    assert "what made the volumes deepem forward --exp_name exp" in text


def test_the_command_on_the_page_makes_the_same_run_again(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepem.train import run

    command = re.search(r"deepem train (--config \S+ --exp_name \S+)", told(page("exp")))
    assert command is not None
    run.main(command[1].split())
    both = [checkpoint.read(Path(f"experiments/{name}/models/model12.chkpt")) for name in ("exp", "exp_again")]
    assert all((value == both[1]["state_dict"][name]).all() for name, value in both[0]["state_dict"].items())


def test_a_run_is_named_by_its_folder_or_its_name(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, out in (
        (["exp"], "experiments/exp/report.html"),
        (["experiments/exp"], "experiments/exp/report.html"),
        ([str(lab / "experiments/exp"), "--out", "a.html"], "a.html"),
    ):
        assert report.main(words) == 0
        assert capsys.readouterr().out == f"{out}\n"
        assert Path(out).is_file()


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(change((run / name).read_bytes()))


def cut(run: Path) -> None:
    """All files end in the middle."""
    for path in run.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only(*kept: str) -> Callable[[Path], object]:
    def remove(run: Path) -> None:
        for path in sorted(run.rglob("*"), reverse=True):
            if path.is_file() and not any(str(path.relative_to(run)).startswith(name) for name in kept):
                path.unlink()

    return remove


STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no options": (lambda run: (run / "options.json").unlink(), "There is no options.json"),
    "damaged options": (rewritten("options.json", lambda b: b[:99]), "options.json is damaged"),
    "options that are a list": (rewritten("options.json", lambda b: b"[1]"), "options.json is damaged"),
    "options of any type": (
        rewritten("options.json", lambda b: b'{"data": 7, "train_ids": {"a": 1}, "aff": "x", "max_iter": []}'),
        "The tasks of options.json cannot be used",
    ),
    "a torn line": (
        rewritten("logs/metrics.jsonl", lambda b: b.replace(b'"phase"', b"\x00", 1)),
        "1 damaged line of metrics.jsonl was left out",
    ),
    "values that are not finite": (
        rewritten("logs/metrics.jsonl", lambda b: b + b'{"iter": 12, "phase": "train", "affinity": NaN}\n'),
        "1 value in metrics.jsonl is infinite or not a number",
    ),
    "no rows yet": (rewritten("logs/metrics.jsonl", lambda b: b""), "metrics.jsonl has no rows yet"),
    "no events": (
        lambda run: [path.unlink() for path in run.glob("logs/events*")],
        "There are no TensorBoard events",
    ),
    "no checkpoint yet": (lambda run: shutil.rmtree(run / "models"), "There is no checkpoint yet"),
    "checkpoints that cannot be read": (
        lambda run: [path.write_bytes(b"x") for path in run.glob("models/model*")],
        "No checkpoint can be read",
    ),
    "checkpoints alone": (only("models"), "There is no options.json"),
    "metrics alone": (only("logs/metrics.jsonl"), "There is no options.json"),
    "options alone": (only("options.json"), "metrics.jsonl has no rows yet"),
    "everything torn": (cut, "options.json is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_a_run_in_any_state_has_a_page_that_says_what_is_missing(lab: Path, state: str) -> None:
    damage, note = STATES[state]
    damage(Path("experiments/exp"))
    assert note in told(page("exp"))


ODD = (7, -1, "x", "", None, [], {}, [[1]], [None], {"a": {}}, True, float("inf"), 10**400, "\ud800", [1, "x", None])


def changed(value: Any, rng: random.Random, often: float) -> Any:
    """A value of JSON with some of its parts replaced by what nobody expects there."""
    if rng.random() < often:
        return rng.choice(ODD)
    if isinstance(value, dict):
        return {key: changed(inner, rng, often) for key, inner in value.items()}
    return [changed(inner, rng, often) for inner in value] if isinstance(value, list) else value


def test_no_value_in_a_file_breaks_the_page(lab: Path) -> None:
    run = Path("experiments/exp")
    shutil.rmtree(run / "models")
    files = [run / "options.json", run / "scores/c.json"]
    before = [json.loads(path.read_text()) for path in files]
    rows = [json.loads(row) for row in (run / "logs/metrics.jsonl").read_text().splitlines()]
    for seed in range(12):
        rng = random.Random(seed)
        often = rng.choice((0.02, 0.1, 0.4))
        for path, held in zip(files, before, strict=True):
            path.write_text(json.dumps(changed(held, rng, often)))
        (run / "logs/metrics.jsonl").write_text("".join(f"{json.dumps(changed(row, rng, often))}\n" for row in rows))
        with h5py.File(run / "forward/c_affinity_12.h5", "a") as file:
            made = dict.fromkeys(("version", "commit", "host", "checkpoint", "checkpoint_sha256", "command"), "x")
            file["main"].attrs["provenance"] = json.dumps(changed(made, rng, often))
        assert "Volumes written" in page("exp")
        assert "2 runs" in page("exp", "other")


def test_a_run_that_is_going_says_how_far_it_is(lab: Path) -> None:
    options = Path("experiments/exp/options.json")
    options.write_text(json.dumps(json.loads(options.read_text()) | {"max_iter": 4000}))
    with open("experiments/exp/logs/metrics.jsonl", "a") as file:
        file.write('{"iter": 15, "phase": "train", "affinity": 0.5}\n{"iter": 18, "pha')
    text = told(page("exp"))
    assert "At iteration 15 of 4,000; last row written" in text
    assert "damaged" not in text


def test_a_resumed_run_says_when_and_what_changed(lab: Path) -> None:
    run = Lab(lab)
    run.base = (lab / "experiments/exp/options.args").read_text().split()
    run.train(None, "--max_iter", 15, "--lr", 0.001, "--change", "lr")
    text = told(page("exp"))
    assert "Changed on resuming from iteration change 12 --lr was 0.002, is 0.001" in text
    assert text.count(f"UTC on {text.split('UTC on ')[1].split()[0]}") == 2
    assert "Complete: 15 of 15" in text


def hostile() -> str:
    """The page of a run with the same text in every place that a file can bring onto it."""
    run = Path("experiments/exp")
    options = json.loads((run / "options.json").read_text())
    for name in ("exp_name", "augment", "model", "eval_segment", "pretrain"):
        options[name] = HACK
    options |= {"train_ids": [HACK], "data": [HACK], HACK: HACK}
    (run / "options.json").write_text(json.dumps(options))
    (run / "options.yaml").write_text(f"{HACK}</pre></details>")
    with open(run / "logs/metrics.jsonl", "a") as file:
        for phase in ("train", "test", "segment"):
            file.write(json.dumps({"iter": 12, "phase": phase, HACK: 1.0, f"drawn/{HACK}": 0.5}) + "\n")
    (run / "logs/history.jsonl").write_text(json.dumps({"iter": HACK, "change": HACK}) + "\n")
    (run / "scores/c.json").write_text(json.dumps(SCORES).replace("affinity", json.dumps(HACK)[1:-1]))
    with h5py.File(run / "forward/c_affinity_12.h5", "a") as file:
        made = dict.fromkeys(("version", "commit", "host", "checkpoint", "checkpoint_sha256", "command"), HACK)
        file["main"].attrs.update(axes=HACK, tasks=[HACK], provenance=json.dumps(made))
    return page("exp")


def test_what_files_say_is_text(lab: Path) -> None:
    text = hostile()
    assert told(text).count(HACK) > 15
    body = text[text.index("<body>") :]
    assert re.findall(r"<script[^>]*>", body)[:-1] == ['<script type="application/json">'] * body.count('class="plot"')
    assert "<img src=x" not in body


def test_what_files_say_is_never_run(lab: Path, chromium: Any) -> None:
    hostile()
    with browser.opened(chromium, lab / "experiments/exp/report.html") as shown:
        assert shown.page.evaluate("window.hacked") is None
        assert (shown.console, shown.requests) == ([], [])
        assert shown.count("path.curve") > 4


def test_a_run_never_decides_which_code_runs(lab: Path) -> None:
    Path("package").mkdir()
    for name in ("data.py", "net.py", "package/__init__.py", "package/net.py"):
        Path(name).write_text("raise RuntimeError('imported')")
    path = Path("experiments/exp/options.json")
    for model in ("net.py", "net", "package.net"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model": model}))
        assert "--norm batch" in told(page("exp"))


BAD: dict[str, tuple[list[str], str]] = {
    "no run": ([], "RUN: got nothing, wants the folder of a run, or its name in experiments/"),
    "an unknown name": (["nun"], "RUN: got nun, which is not there, wants the folder of a run, or the name of one in "
                                 "experiments/; there: exp, other"),
    "a folder that is no run": (["data"], "RUN: got data, which holds no run, wants"),
    "a name that no file has": (["a\0b"], "RUN: got a\0b, which is not there"),
    "another folder": (["../../etc"], "RUN: got ../../etc, which is not there"),
    "a folder to write": (["exp", "--out", "experiments"], "--out: got experiments, wants a name that ends in .html"),
    "a folder with that name": (["exp", "--out", "f.html"], "--out: got f.html, wants a file, not a folder"),
    "a folder that is not there": (["exp", "--out", "no/a.html"], "--out: got no/a.html, wants a file in a"),
    "a file of the run": (["exp", "--out", "experiments/exp/options.json"], "--out: got experiments/exp/"),
    "an unknown flag": (["exp", "--outt", "a.html"], "--outt: got"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case: str, lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, line = BAD[case]
    for folder in ("data", "f.html"):
        Path(folder).mkdir()
    with pytest.raises(SystemExit) as caught:
        report.main(words)
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert err.startswith(f"deepem report: error: {line}")
    assert (out, err.count("\n")) == ("", 1)
    assert [path for path in Path().rglob("*.html") if path.is_file()] == []


def test_a_page_that_cannot_be_made_leaves_the_one_that_is_there(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page("exp")

    def fails(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(SystemExit):
        report.main(["exp"])
    assert Path("experiments/exp/report.html").read_text() == before
    assert list(Path("experiments/exp").glob(".*part")) == []


def test_several_runs_are_compared(lab: Path) -> None:
    text = page("exp", "other")
    words = told(text)
    assert "2 runs exp and other." in words
    assert "Options that differ flag exp other --max_iter 12 8 --lr 0.002 0.004" in words
    assert "AP of cut edges" in words
    assert text.count('class="plot"') == 3  # affinity, mitochondria, their sum
    assert len(re.findall(r'class="curve', text)) == 6
    shutil.copytree("experiments/exp", "copy")
    assert report.main(["exp", "copy", "--out", "both.html"]) == 0
    assert "2 runs experiments/exp and copy." in told(Path("both.html").read_text())


def test_the_page_is_small_however_long_the_run(lab: Path) -> None:
    rng = np.random.default_rng(0)
    with open("experiments/other/logs/metrics.jsonl", "w") as file:
        for iteration, value in enumerate(rng.uniform(0.2, 0.3, 30_000), 1):
            value = 7.25 if iteration == 12_345 else value
            file.write(f'{{"iter": {iteration}, "phase": "train", "affinity": {value}, "lr": 0.1}}\n')
    text = page("other")
    assert len(text) < 200_000
    assert "7.25" in text  # an extreme is kept
    assert run_record.read(Path("experiments/other")).log.rows == 30_000


WINDOWS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"dark": True},
    "narrow": {"width": 390, "height": 844},
    "wide and dark": {"width": 2200, "dark": True},
}


@pytest.mark.parametrize("window", WINDOWS)
def test_the_page_in_a_browser(window: str, lab: Path, chromium: Any) -> None:
    """Nothing on the console, no requests, all curves and pictures, the theme of the system, no sideways scrolling."""
    page("exp")
    page("exp", "other")
    with browser.opened(chromium, Path("experiments/exp/report.html"), **WINDOWS[window]) as shown:
        assert (shown.console, shown.requests) == ([], [])
        assert not shown.overflows
        charts = {"affinity": 2, "mitochondria": 2, "weighted sum": 1, "learning rate": 1, "throughput": 1}
        for title, curves in {**charts, "waiting for data": 1, "gradient norm": 1}.items():
            figure = shown.page.locator("figure.chart", has=shown.page.get_by_text(title, exact=True))
            assert figure.locator("path.curve").count() == curves, title
            box = figure.locator("path.curve").last.bounding_box()
            assert box["width"] > 50, title
        assert shown.count("img") == 4
        assert shown.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 20)")
        red, green, blue = shown.page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (max(red, green, blue) < 64) == ("dark" in window)
        assert (min(red, green, blue) > 192) != ("dark" in window)
    with browser.opened(chromium, Path("experiments/report.html"), **WINDOWS[window]) as shown:
        assert (shown.console, shown.requests, shown.overflows) == ([], [], False)
        assert shown.count("path.curve") == 6


def test_values_are_shown_under_the_pointer(lab: Path, chromium: Any) -> None:
    page("exp")
    rows = [json.loads(row) for row in Path("experiments/exp/logs/metrics.jsonl").read_text().splitlines()]
    last = {row["phase"]: row["affinity"] for row in rows}
    with browser.opened(chromium, Path("experiments/exp/report.html")) as shown:
        box = shown.page.locator(".plot").first.bounding_box()
        assert shown.count(".tip") == 0
        shown.page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 20)
        lines = shown.page.locator(".tip > div").all_inner_texts()
        assert lines == [f"{phase} {float(f'{value:.4g}'):g} at 12" for phase, value in last.items()]
        assert shown.count(".cross") == shown.count(".plot")
        shown.page.mouse.move(5, 5)
        assert shown.count(".tip") == 0


def test_the_browser_tells_of_errors_requests_and_overflow(tmp_path: Path, chromium: Any) -> None:
    """The checks above can fail."""
    path = tmp_path / "a.html"
    script = "<script>console.error('a'); throw Error('b')</script>"
    path.write_text(f"<body style='width:500px'><img src='http://127.0.0.1:9/x.png'>{script}")
    with browser.opened(chromium, path, width=390) as shown:
        assert shown.overflows
        assert shown.requests == ["http://127.0.0.1:9/x.png"]
        assert {"a", "b"} <= set(shown.console)
