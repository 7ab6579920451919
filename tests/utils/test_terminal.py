"""What a program prints never ends it."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest

from deepem.cli.one_line import one_line_errors
from deepem.utils.errors import of_environment
from deepem.utils.terminal import Lasting

PROGRAM = """
import sys
from deepem.cli.one_line import one_line_errors
with one_line_errors("p"):
    for _ in range(3):
        sys.stdout.write("é\\n" * 10000)
    sys.stdout.flush()
    sys.stderr.write("to the end\\n")
    open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-", ">&- 2>&-", "2>&1 | true", "<&- >&- 2>&-"])
def test_a_program_goes_on_without_a_reader(tmp_path, verb_env, redirect):
    done = tmp_path / "done"
    line = f'set -o pipefail; "{sys.executable}" -c "$PROGRAM" "{done}" {redirect}'
    code = subprocess.run(["bash", "-c", line], env={**verb_env, "PROGRAM": PROGRAM}, stderr=subprocess.DEVNULL)
    assert code.returncode == 0
    assert done.read_text() == "done"


def test_letters_that_a_terminal_lacks_are_spelled_out():
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, "ascii"))
    stream.write("café 数")
    stream.flush()
    assert raw.getvalue() == rb"caf\xe9 \u6570"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ESTALE])
def test_a_refusal_of_the_system_is_one_line(capsys, number):
    with pytest.raises(SystemExit) as ended, one_line_errors("p"):
        raise OSError(number, os.strerror(number), "some/file")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"p: error: some/file: got {os.strerror(number)}, wants ")


def test_any_other_error_keeps_its_traceback():
    with pytest.raises(FileNotFoundError), one_line_errors("p"):
        raise FileNotFoundError(errno.ENOENT, "no", "x")
    assert of_environment(ValueError("x")) is None
