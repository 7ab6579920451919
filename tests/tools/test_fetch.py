"""Published checkpoints: written as a bundle, served by a server on this machine, fetched by name, checked, used."""

from __future__ import annotations

import functools
import json
import pickle
import shutil
import socket
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from lab import FOV, OPTIONS, Lab

import deepem
from deepem.io.download import digest
from deepem.tools import bundle, export, fetch

pytest.importorskip("pooch")
pytest.importorskip("safetensors")
SPEC = [{"input": [1, *FOV]}, {"affinity": [3, *FOV], "mitochondria": [1, *FOV]}]


class Silent(SimpleHTTPRequestHandler):
    """A web server that says nothing of what it serves, and never answers for a file named in `stuck`."""

    stuck = ""
    end = Event()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.stuck and self.path.endswith(self.stuck):
            self.end.wait(20)
        else:
            super().do_GET()


class Site:
    """A lab that has published its run `exp` as `net` on a server, and works in an empty folder."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.folder, self.lab, self.served = folder, lab, folder / "site" / "net"

    def publish(self, **options: object) -> None:
        self.lab.save(7, {"options": OPTIONS, "spec": SPEC, "channels": 1, **options})
        assert export.main(["--exp_name", "exp", "--out", str(self.served), "--bundle", "--licence", "MIT"]) == 0

    def table(self, address: str, sha256: str | None = None) -> None:
        row = {"address": address, "sha256": sha256 or digest(self.served / bundle.MANIFEST)}
        Path("ours.json").write_text(json.dumps({"net": row}))

    def change(self, name: str, how: Any) -> None:
        """Change a served file, and the checksums with it, as somebody who publishes it would."""
        how(self.served / name)
        manifest = json.loads((self.served / bundle.MANIFEST).read_text())
        manifest["files"][name] = {"bytes": 0, "sha256": digest(self.served / name)}
        (self.served / bundle.MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path, Lab.with_checkpoint(tmp_path))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    Silent.stuck, Silent.end = "", Event()
    handler = functools.partial(Silent, directory=str(site.folder / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}/net"
        Silent.end.set()
        web.shutdown()
        thread.join()


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Fetch, which fails; the line of the error."""
    with pytest.raises(SystemExit) as caught:
        fetch.main([*words, "--table", "ours.json"])
    assert caught.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("deepem fetch: error: ")
    assert ", wants " in line
    return line


def left() -> list[str]:
    """What is in the folder of the runs, hidden files too."""
    return sorted(path.name for path in Path("experiments").iterdir())


def test_a_bundle_has_everything_with_its_checksum_and_nothing_else(site):
    site.publish()
    manifest = json.loads((site.served / bundle.MANIFEST).read_text())
    names = {path.name for path in site.served.iterdir()} - {bundle.MANIFEST, bundle.PACKAGE}
    assert set(manifest["files"]) == names
    assert names == {
        *("model.safetensors", "model.json", "MODEL_CARD.md", "options.yaml"),
        *("example_input.npy", "example_affinity.npy", "example_mitochondria.npy"),
    }
    for name, told in manifest["files"].items():
        assert told == {"bytes": (site.served / name).stat().st_size, "sha256": digest(site.served / name)}
    image = np.load(site.served / "example_input.npy")
    assert (image.shape, image.dtype) == ((1, 1, *FOV), np.uint8)
    assert image.std() > 5
    with torch.no_grad():
        logits = site.lab.net(torch.from_numpy(image / np.float32(255)))
    for name, expected in logits.items():
        assert np.allclose(np.load(site.served / f"example_{name}.npy"), expected.sigmoid(), atol=1e-6)
    assert "licence**: MIT" in (site.served / "MODEL_CARD.md").read_text()


def test_a_checkpoint_comes_by_its_name_and_is_the_one_that_was_published(site, address, capsys):
    site.publish()
    site.table(address)
    assert fetch.main(["net", "--table", "ours.json"]) == 0
    assert "as a checkpoint: experiments/net/models/model7.chkpt" in capsys.readouterr().out
    assert left() == ["exp", "net"]
    weights = site.lab.net.state_dict()
    for path in ("experiments/net", "experiments/net/models/model7.chkpt"):
        found = deepem.load(path).state_dict()
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert not list(Path("experiments/net").glob("*.sha256"))


def test_what_was_fetched_predicts_and_teaches_as_the_run_itself_does(site, address):
    from deepem.test import forward

    intensity = {"ranges": [[100.0, 4000.0]]}
    site.publish(intensity=intensity)
    site.table(address)
    fetch.main(["net", "--table", "ours.json", "--out", "experiments/other"])
    assert site.lab.state("other", 7)["intensity"] == intensity
    site.lab.image("t", (6, 20, 20))
    for name in ("exp", "other"):
        forward.main(["--exp_name", name, "--cpu", "--data_dir", "data", "--test_ids", "t"])
    one, other = (deepem.io.files.imread(f"experiments/{n}/forward/t_affinity_7.h5") for n in ("exp", "other"))
    assert np.array_equal(one, other)


def test_a_second_call_checks_what_is_there_and_asks_nobody(site, address, capsys):
    site.publish()
    site.table(address)
    fetch.main(["net", "--table", "ours.json"])
    Silent.stuck = "json"
    assert fetch.main(["net", "--table", "ours.json"]) == 0
    assert "is there already, and its checksums are right" in capsys.readouterr().out
    Path("experiments/net/model.json").write_text("{}")
    assert "model.json: got checksum" in fails(capsys, "net")


def test_a_folder_with_other_files_is_left_alone(site, address, capsys):
    site.publish()
    site.table(address)
    Path("experiments/net").mkdir()
    Path("experiments/net/notes.txt").write_text("mine")
    assert "a folder that has files" in fails(capsys, "net")
    assert [path.name for path in Path("experiments/net").iterdir()] == ["notes.txt"]


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": print}))


def as_checkpoint(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_outputs(path: Path) -> None:
    np.save(path, np.load(path)[:, :, ::-1])


def not_a_number(path: Path) -> None:
    np.save(path, np.load(path) * np.nan)


def other_shape(path: Path) -> None:
    np.save(path, np.load(path)[:, :1])


def objects(path: Path) -> None:
    np.save(path, np.array([print], object), allow_pickle=True)


def other_model(path: Path) -> None:
    card = json.loads(path.read_text())
    card["run"]["options"]["model"] = "evil.py"
    path.write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("name", "how", "told"),
    [
        ("model.safetensors", pickled, "model.safetensors: got a file that cannot be read"),
        ("model.safetensors", as_checkpoint, "wants tensors in the safetensors format"),
        ("model.safetensors", cut, "model.safetensors: got a file that cannot be read"),
        ("example_affinity.npy", other_outputs, "got a network whose output affinity differs from its example by"),
        ("example_affinity.npy", not_a_number, "got a network whose output affinity differs from its example by nan"),
        ("example_affinity.npy", other_shape, "example_affinity.npy: got shape (1, 1, 4, 16, 16), wants (1, 3, 4"),
        ("example_affinity.npy", cut, "got no example ("),
        ("example_input.npy", objects, "got no example (Object arrays cannot be loaded"),
        ("model.json", other_model, "names evil.py, which is not one of deepem's"),
        ("model.json", lambda path: path.write_text("[]"), "model.json: got a card that says nothing of the network"),
        ("weights.pt", as_checkpoint, "got the file weights.pt, wants tensors, arrays and text alone"),
        ("../up.npy", lambda path: path.write_text(""), "got the file ../up.npy, wants tensors"),
    ],
)
def test_what_is_no_network_of_tensors_is_refused_and_nothing_is_left(site, address, capsys, name, how, told):
    site.publish()
    site.change(name, how)
    site.table(address)
    assert told in fails(capsys, "net")
    assert left() == ["exp"]


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "example_input.npy"])
def test_a_file_that_was_changed_on_the_server_is_refused(site, address, capsys, name):
    site.publish()
    site.table(address)
    with open(site.served / name, "ab") as file:
        file.write(b" ")
    assert f"{address}/{name}: got a file with another checksum" in fails(capsys, "net")
    assert left() == ["exp"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello", "got a file that lists no files"),
        ("[]", "got a file that lists no files"),
        ('{"files": {"model.json": 5}}', "got a file that lists no files"),
        ('{"format": 2, "files": {}}', "got format 2, wants 1"),
        ('{"format": 1, "files": {}}', "got a bundle without model.safetensors"),
        ('{"format": 1, "files": {"model.json": {"sha256": "1"}}}', "got sha256 '1' of model.json"),
    ],
)
def test_a_manifest_that_is_none_is_refused(site, address, capsys, text, told):
    site.publish()
    (site.served / bundle.MANIFEST).write_text(text)
    site.table(address)
    assert told in fails(capsys, "net")
    assert left() == ["exp"]


def test_a_server_that_stops_or_has_no_such_file_is_one_line_and_nothing_is_left(site, address, capsys):
    site.publish()
    site.table(address)
    Silent.stuck = "model.safetensors"
    assert "timed out" in fails(capsys, "net", "--patience", "0.3")
    Silent.stuck = ""
    (site.served / "model.json").unlink()
    assert "404" in fails(capsys, "net")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        site.table(f"http://127.0.0.1:{free.getsockname()[1]}/net")
    assert "got no file" in fails(capsys, "net")
    assert left() == ["exp"]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("no json", "ours.json: got no JSON"),
        ("[]", "ours.json: got a list"),
        ('{"net": 5}', "ours.json: net: got address None"),
        ('{"net": {"address": "ftp://x"}}', "ours.json: net: got address 'ftp://x'"),
        ('{"net": {"address": "http://x", "sha256": "1"}}', "ours.json: net: got sha256 '1'"),
        ('{"../x": {}}', "ours.json: ../x: got this name"),
        ("{}", "NAME: got net, which ours.json does not have, wants a table with rows"),
        ('{"nets": {"address": "http://x", "sha256": "%s"}}' % ("0" * 64), "wants nets, which is nearest"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, monkeypatch, capsys, table, told):
    monkeypatch.chdir(tmp_path)
    Path("ours.json").write_text(table)
    assert told in fails(capsys, "net")


def test_the_table_of_the_package_is_read_and_listed(capsys):
    assert fetch.main(["--list"]) == 0
    held = json.loads(fetch.TABLE.read_text())
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(held)


def test_an_example_may_be_cut_from_an_image(site, capsys):
    image = site.lab.image("em", (6, 20, 24))
    site.lab.save(7, {"options": OPTIONS, "spec": SPEC, "channels": 1})
    words = ["--exp_name", "exp", "--out", "own", "--bundle"]
    assert export.main([*words, "--example", "data/em/img.h5"]) == 0
    assert np.array_equal(np.load("own/example_input.npy")[0, 0], image[1:5, 2:18, 4:20])
    site.lab.image("small", (6, 20, 10))
    for more, told in {
        ("--example", "data/small/img.h5"): "--example: got data/small/img.h5 with 1 channels of (6, 20, 10) voxels",
        ("--name", "a/b"): "--name: got a/b, wants letters",
        (): "own: got a folder that has files",
    }.items():
        with pytest.raises(SystemExit):
            export.main([*words[:3], "own2" if more else "own", "--bundle", *more])
        assert told in capsys.readouterr().err
        assert not Path("own2").exists()
    with pytest.raises(SystemExit):
        export.main([*words[:4], "--name", "x"])
    assert "--name: got x, wants --bundle with it" in capsys.readouterr().err


INTENSITIES = {
    "bytes": None,
    "a range": {"ranges": [[100.0, 4000.0]]},
    "a narrow range": {"ranges": [[-1.0, 1.0]]},
    "percentiles": {"percentiles": [1.0, 99.0]},
}


@pytest.mark.parametrize("name", INTENSITIES)
def test_the_package_for_bioimage_io_is_as_its_library_wants_and_gives_the_example(site, name):
    """bioimageio.spec opens the test tensors too; the steps that the file names are done here with numpy."""
    spec = pytest.importorskip("bioimageio.spec")
    site.publish(intensity=INTENSITIES[name])
    found = spec.load_description(site.served / bundle.PACKAGE, perform_io_checks=True)
    assert found.validation_summary.status == "valid-format", found.validation_summary.format()
    shutil.unpack_archive(site.served / bundle.PACKAGE, "unpacked")
    step = found.weights.pytorch_state_dict.architecture
    module = __import__(step.import_from, fromlist=[step.callable])
    network = getattr(module, step.callable)(**step.kwargs)
    network.load_state_dict(torch.load("unpacked/weights.pt", weights_only=True))
    image = np.load("unpacked/example_input.npy").astype(np.float32)
    for step in found.inputs[0].preprocessing:
        kwargs = step.kwargs
        if step.id == "scale_linear":
            image = image * np.array(kwargs.gain) + np.array(kwargs.offset)
        elif step.id == "scale_range":
            low, high = np.percentile(image, [kwargs.min_percentile, kwargs.max_percentile])
            image = (image - low) / (high - low + kwargs.eps)
        elif step.id == "clip":
            image = image.clip(kwargs.min, kwargs.max)
    with torch.no_grad():
        made = network(torch.from_numpy(image.astype(np.float32)))
    assert [str(out.id) for out in found.outputs] == ["affinity", "mitochondria"]
    (tolerance,) = found.config.bioimageio.reproducibility_tolerance
    for out, ours in zip(found.outputs, made, strict=True):
        largest = np.abs(np.load(f"unpacked/example_{out.id}.npy") - ours.numpy()).max()
        assert largest < (tolerance.absolute_tolerance if name == "percentiles" else 1e-5)
