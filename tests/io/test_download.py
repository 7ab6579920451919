"""Downloads, against a server on this machine that redirects, stops, lies and is slow."""

from __future__ import annotations

import hashlib
import resource
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from deepem.io.download import Progress, fetch
from deepem.utils.errors import InputError

pytest.importorskip("pooch")
BODY = bytes(range(256)) * 4000
SHA = hashlib.sha256(BODY).hexdigest()


class Server(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    end = Event()

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/moved":
            self.answer(302, b"", Location="/file")
        elif self.path == "/round":
            self.answer(302, b"", Location="/round")
        elif self.path == "/gone":
            self.answer(404, b"nothing here")
        elif self.path == "/huge":
            self.answer(200, b"", length=10**18)
        elif self.path == "/cut":
            self.answer(200, BODY[: len(BODY) // 2], length=len(BODY))
        elif self.path == "/hangs":
            self.answer(200, BODY[:1000], length=len(BODY))
            self.end.wait(20)
        else:
            self.answer(200, BODY)

    def answer(self, code, body, length=None, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if length is not None and self.path != "/hangs":
            self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def url():
    Server.asked, Server.end = [], Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as web:
        thread = Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        Server.end.set()
        web.shutdown()
        thread.join()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_once_with_its_checksum_and_progress(url, tmp_path, capsys):
    target = fetch(f"{url}/file", tmp_path / "a.bin", SHA.upper())
    assert target.read_bytes() == BODY
    assert "100 %" in capsys.readouterr().err
    assert (tmp_path / "a.bin.sha256").read_text() == f"{SHA}  a.bin\n"
    fetch(f"{url}/file", target)
    assert Server.asked == ["/file"]
    assert left(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_a_redirect_is_followed(url, tmp_path):
    assert fetch(f"{url}/moved", tmp_path / "a.bin").read_bytes() == BODY
    assert Server.asked == ["/moved", "/file"]


@pytest.mark.parametrize(
    ("path", "sha", "got"),
    [
        ("/gone", None, "404"),
        ("/round", None, "redirects"),
        ("/cut", None, "no file"),
        ("/cut", SHA, "no file"),
        ("/file", "0" * 64, "another checksum"),
        ("/huge", None, "GB free"),
        ("/hangs", None, "timed out"),
    ],
)
def test_what_goes_wrong_is_one_line_and_nothing_is_left(url, tmp_path, path, sha, got):
    with pytest.raises(InputError, match=got) as error:
        fetch(url + path, tmp_path / "a.bin", sha, patience=0.3)
    assert "\n" not in str(error.value)
    assert left(tmp_path) == []
    assert fetch(f"{url}/file", tmp_path / "a.bin").read_bytes() == BODY  # the next attempt is a fresh one


def test_a_server_that_is_not_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="no file"):
        fetch(f"http://127.0.0.1:{port}/a", tmp_path / "a")
    assert left(tmp_path) == []


def test_a_disk_that_fills_up_is_one_line(url, tmp_path, root):
    """The limit on the size of files stands for a full disk: the write fails in the same place."""
    code = (
        "import sys; from pathlib import Path; from deepem.io.download import fetch\n"
        "from deepem.utils.errors import InputError\n"
        "try:\n    fetch(sys.argv[1], Path(sys.argv[2]))\nexcept InputError as error:\n    sys.exit(str(error))\n"
    )

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-c", code, f"{url}/file", str(tmp_path / "a.bin")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, preexec_fn=small)
    assert done.returncode == 1
    assert "a disk that cannot take it" in done.stderr
    assert left(tmp_path) == []


def test_a_file_that_was_changed_is_refused(url, tmp_path):
    target = fetch(f"{url}/file", tmp_path / "a.bin")
    target.write_bytes(b"other")
    with pytest.raises(InputError, match="checksum"):
        fetch(f"{url}/file", target)


def test_progress_without_a_total(tmp_path, capsys):
    bar = Progress(tmp_path / "a")
    bar.total = 0
    bar.update(3 << 20)
    assert "3 MB" in capsys.readouterr().err


def test_a_file_of_another_format_is_not_kept(url, tmp_path):
    with pytest.raises(InputError, match="of another format, such as an error page"):
        fetch(f"{url}/file", tmp_path / "a.bin", accept=lambda file: file.read_bytes() != BODY)
    assert left(tmp_path) == []


@pytest.mark.parametrize("record", ["", "\n", "abc  a.bin\n"])
def test_a_damaged_record_of_a_checksum_says_what_to_do(tmp_path, record):
    (tmp_path / "a.bin").write_bytes(BODY)
    (tmp_path / "a.bin.sha256").write_text(record)
    with pytest.raises(InputError, match="remove both files to download again"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
