"""A program that is asked to stop leaves nothing half-written."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deepem.utils.exit_codes import STOPPED
from deepem.utils.files import replacing
from deepem.utils.stopping import stopping_tidily


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_is_half_written_goes_away(tmp_path: Path, capsys, number) -> None:
    def stopped() -> None:
        with stopping_tidily(), replacing(tmp_path / "a") as beside:
            beside.write_text("half")
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        stopped()
    assert ended.value.code == STOPPED
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is handler
    assert capsys.readouterr().err == f"warning: {number.name}: stopped; what was half written is removed\n"
