"""Checkpoints: whole or not at all, read without running code, told apart when they fail."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from deepem.utils import checkpoint
from deepem.utils.errors import InputError


def state(value: float = 1.0) -> checkpoint.State:
    return {"iter": 3, "state_dict": {"weight": torch.full((64, 64), value)}, "optimizer": {}, "options": {"lr": 0.1}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path / "new", 3)
    checkpoint.write(path, state())
    back = checkpoint.read(path)
    assert torch.equal(back["state_dict"]["weight"], state()["state_dict"]["weight"])
    assert (back["iter"], back["options"], os.listdir(path.parent)) == (3, {"lr": 0.1}, ["model3.chkpt"])


def test_a_bare_state_dict_is_a_checkpoint_too(tmp_path: Path) -> None:
    torch.save(state()["state_dict"], tmp_path / "model1.chkpt")
    assert list(checkpoint.read(tmp_path / "model1.chkpt")) == ["state_dict"]


@pytest.mark.parametrize("keep", [0, 10, 2000, -1, -30])
def test_a_truncated_file_is_an_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model3.chkpt"
    checkpoint.write(path, state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model3\.chkpt: got an unreadable or truncated file"):
        checkpoint.read(path)


def test_one_flipped_bit_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model3.chkpt"
    checkpoint.write(path, state())
    data = bytearray(path.read_bytes())
    data[data.index(state()["state_dict"]["weight"].numpy().tobytes()) + 999] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"model3\.chkpt: got a damaged file"):
        checkpoint.read(path)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_reading_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Evil()}, "model1.chkpt")
    Path("model2.chkpt").write_bytes(pickle.dumps(_Evil()))
    for number in (1, 2):
        with pytest.raises(InputError, match=r"got other objects in it \(\w+\.mkdir\)|got an unreadable"):
            checkpoint.read(Path(f"model{number}.chkpt"))
    assert not Path("ran").exists()


def test_the_newest_that_can_be_read_is_taken_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (2, 10):
        checkpoint.write(checkpoint.path_of(tmp_path, number), state())
    checkpoint.path_of(tmp_path, 11).write_bytes(b"torn")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[0] == 10
    assert "warning: passed over: " in capsys.readouterr().err
    assert checkpoint.newest(tmp_path / "none") is None


def test_an_absent_checkpoint_names_those_there(tmp_path: Path) -> None:
    checkpoint.write(checkpoint.path_of(tmp_path, 5), state())
    with pytest.raises(InputError, match=r"model7.chkpt: got no such file, wants one of the checkpoints there: 5"):
        checkpoint.read(checkpoint.path_of(tmp_path, 7))


def test_a_failed_write_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.path_of(tmp_path, 3)
    checkpoint.write(path, state(1.0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        checkpoint.write(path, state(2.0))
    assert checkpoint.read(path)["state_dict"]["weight"][0, 0] == 1
    assert os.listdir(tmp_path) == ["model3.chkpt"]


def test_too_little_disk_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MiB for the next checkpoint"):
        checkpoint.require_room(tmp_path / "a" / "b", 1 << 60)
    checkpoint.require_room(tmp_path / "a" / "b", 1)


def test_another_architecture_lists_the_keys_that_differ(tmp_path: Path) -> None:
    weights = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), "9.bias": torch.zeros(1)}
    with pytest.raises(InputError) as caught:
        checkpoint.load_weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), weights, "model3.chkpt")
    text = str(caught.value)
    for part in ("2 missing (1.weight, 1.bias)", "1 unknown (9.bias)", "1 of another shape (0.bias)"):
        assert part in text


def test_matching_entries_can_be_taken_alone() -> None:
    model = nn.Linear(2, 3)
    bias = model.bias.detach().clone()
    left = checkpoint.load_weights(model, {"weight": torch.zeros(3, 2), "other": torch.ones(1)}, "x", matching=True)
    assert left == ["bias"]
    assert torch.equal(model.weight, torch.zeros(3, 2))
    assert torch.equal(model.bias, bias)


def test_newer_checkpoints_are_moved_never_overwritten(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        checkpoint.write(checkpoint.path_of(tmp_path, number), state(number))
    first = checkpoint.set_aside(tmp_path, 1)
    checkpoint.write(checkpoint.path_of(tmp_path, 2), state(7))
    second = checkpoint.set_aside(tmp_path, 1)
    assert checkpoint.numbers(tmp_path) == [1]
    assert len({*first, *second}) == 3
    assert [checkpoint.read(path)["state_dict"]["weight"][0, 0] for path in (*first, *second)] == [2, 3, 7]


def test_pruning_keeps_the_newest_the_kth_and_the_best(tmp_path: Path) -> None:
    for number in range(1, 8):
        checkpoint.write(checkpoint.path_of(tmp_path, number), state())
    checkpoint.link(tmp_path, "best.chkpt", 2)
    assert checkpoint.prune(tmp_path, 2, 3, 2) == [1, 4, 5]
    assert checkpoint.numbers(tmp_path) == [2, 3, 6, 7]
    assert checkpoint.read(tmp_path / "best.chkpt")["iter"] == 3
    checkpoint.link(tmp_path, "best.chkpt", None)
    assert checkpoint.prune(tmp_path, 1, 0, None) == [2, 3, 6]
    assert os.listdir(tmp_path) == ["model7.chkpt"]


def test_one_that_cannot_be_used_names_the_others(tmp_path: Path) -> None:
    for number in (3, 10, 20):
        checkpoint.write(checkpoint.path_of(tmp_path, number), state())
    path = checkpoint.path_of(tmp_path, 10)
    with pytest.raises(
        InputError, match=r"model10\.chkpt: got keys that differ .* wants the same architecture; there: 3, 20"
    ):
        checkpoint.load_weights(nn.Linear(2, 2), checkpoint.read(path)["state_dict"], path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"model10\.chkpt: got an unreadable or truncated file .*; there: 3, 20"):
        checkpoint.read(path)
    checkpoint.write(path, {"state_dict": 5})
    with pytest.raises(InputError, match=r"model10\.chkpt: got state_dict = 5, wants tensors by name"):
        checkpoint.read(path)
