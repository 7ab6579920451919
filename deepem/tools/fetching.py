"""Fetch a bundle (see `deepem.tools.bundle`) from an address, and believe nothing that its checksums do not cover."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepem.build import loading
from deepem.build.loading import CARD, WEIGHTS
from deepem.io.download import check, fetch
from deepem.tools import bundle
from deepem.tools.serving import CARD_IN_WORDS
from deepem.utils import checkpoint
from deepem.utils.errors import InputError
from deepem.utils.files import appearing

HEX = re.compile(r"[0-9a-fA-F]{64}")
TAKEN = re.compile(
    rf"{re.escape(WEIGHTS)}|{re.escape(CARD)}|{re.escape(CARD_IN_WORDS)}|{re.escape(bundle.OPTIONS)}|example_\w+\.npy"
)
"""Names of files that are tensors, arrays or text. Others are refused, since they may be code."""
NEEDED = (WEIGHTS, CARD, bundle.EXAMPLE)
TOLERANCE = 1e-3
"""Two machines may differ by this much in a probability; a wrong network differs by more."""


@dataclass(frozen=True)
class Row:
    """Where a checkpoint is published.

    Attributes:
        address: The URL of its folder, ending in a slash.
        sha256: The checksum of `bundle.json` there.
    """

    address: str
    sha256: str


def table(path: Path) -> dict[str, Row]:
    """Read a table of published checkpoints.

    Raises:
        InputError: the file cannot be read, or a row is not as it should be.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, error.strerror or error, "a table of published checkpoints") from error
    except ValueError as error:
        raise InputError(path, f"no JSON ({error})", 'a table {"NAME": {"address": ..., "sha256": ...}}') from error
    if not isinstance(held, dict):
        raise InputError(path, f"a {type(held).__name__}", 'a table {"NAME": {"address": ..., "sha256": ...}}')
    return {name: _row(f"{path}: {name}", name, row) for name, row in held.items()}


def _row(where: str, name: str, row: object) -> Row:
    if not bundle.NAME.fullmatch(name):
        raise InputError(where, "this name", "letters, digits, _ . and -")
    address, sha256 = (row.get("address"), row.get("sha256")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(address, str) or not re.match(r"https?://", address):
        raise InputError(where, f"address {address!r}", "an address that begins with http:// or https://")
    if not isinstance(sha256, str) or not HEX.fullmatch(sha256):
        raise InputError(where, f"sha256 {sha256!r}", f"the checksum of {bundle.MANIFEST}, 64 hexadecimal digits")
    return Row(f"{address.rstrip('/')}/", sha256.lower())


def row(rows: Mapping[str, Row], name: str, path: Path) -> Row:
    """Return the row of a name.

    Raises:
        InputError: the table has no such name.
    """
    if name in rows:
        return rows[name]
    near = get_close_matches(name, rows, 1)
    wants = f"{near[0]}, which is nearest, or " if near else ""
    wants += f"one of: {', '.join(rows)}" if rows else "a table with rows: name yours with --table"
    raise InputError("NAME", f"{name}, which {path.name} does not have", wants)


def fetched(row: Row, out: Path, model: str | None, patience: float) -> str:
    """Fetch a bundle into a folder, check it, and write a checkpoint beside it for other programs.

    Args:
        row: Where it is published.
        out: The folder; if it holds the bundle already, it is only checked.
        model: The model module, if it is not one of deepem's.
        patience: A server that sends nothing for this many seconds counts as gone.

    Returns:
        A line about what is in the folder.

    Raises:
        InputError: the server does not answer, or what it serves is not what was published.
    """
    if (out / bundle.MANIFEST).is_file():
        check(out / bundle.MANIFEST, row.sha256)
        for name, sha256 in _manifest(out / bundle.MANIFEST, row.address).items():
            check(out / name, sha256)
        return f"{out}: is there already, and its checksums are right"
    with appearing(out) as folder:
        manifest = fetch(row.address + bundle.MANIFEST, folder / bundle.MANIFEST, row.sha256, patience)
        for name, sha256 in _manifest(manifest, row.address).items():
            fetch(row.address + name, folder / name, sha256, patience)
        for record in folder.glob("*.sha256"):
            record.unlink()  # the manifest has them all
        difference = _verified(folder, row.address, model)
        number = _write_checkpoint(folder)
    path = checkpoint.path_of(out / "models", number)
    return f"{out}: the example differs by {difference:.2g} at most; as a checkpoint: {path}"


def _manifest(path: Path, address: str) -> dict[str, str]:
    """Return the checksum of each file of a bundle."""
    where = f"{address}{bundle.MANIFEST}"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        files = {name: told["sha256"] for name, told in held["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(where, "a file that lists no files", "one that deepem export --bundle wrote") from error
    if held.get("format") != bundle.FORMAT:
        wants = f"{bundle.FORMAT}: a newer deepem may read it"
        raise InputError(where, f"format {held.get('format')}", wants)
    for name, sha256 in files.items():
        if not TAKEN.fullmatch(name):
            raise InputError(where, f"the file {name}", "tensors, arrays and text alone: others may be code")
        if not isinstance(sha256, str) or not HEX.fullmatch(sha256):
            raise InputError(where, f"sha256 {sha256!r} of {name}", "64 hexadecimal digits")
    if lacking := [name for name in NEEDED if name not in files]:
        raise InputError(where, f"a bundle without {lacking[0]}", f"one with {', '.join(NEEDED)}")
    return files


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return card


def _verified(folder: Path, address: str, model: str | None) -> float:
    """Run the network on its example, and return the largest difference from the published probabilities."""
    network = loading.load(folder, model)  # checks card and weights
    card = _card(folder)
    served = loading.served(card["run"], model)
    served.load_state_dict(network.state_dict())
    try:
        image = np.load(folder / bundle.EXAMPLE, allow_pickle=False)
        given = torch.from_numpy(bundle.normalised(image, card.get("intensity")))
        published = [np.load(folder / f"example_{name}.npy", allow_pickle=False) for name in card["tasks"]]
    except (ValueError, OSError, LookupError, TypeError, AttributeError, EOFError) as error:
        raise InputError(f"{address}example_*.npy", f"no example ({error})", "arrays of input and outputs") from error
    with torch.no_grad():
        made = served(given)
    difference = 0.0
    for name, ours, theirs in zip(card["tasks"], made, published, strict=True):
        if ours.shape != theirs.shape:
            raise InputError(f"{address}example_{name}.npy", f"shape {theirs.shape}", tuple(ours.shape))
        difference = max(float(np.abs(ours.numpy() - theirs).max()), difference)
        if not difference <= TOLERANCE:  # NaN is refused too
            got = f"a network whose output {name} differs from its example by {difference:.2g}"
            raise InputError(address, got, f"{TOLERANCE} at most")
    return difference


def _write_checkpoint(folder: Path) -> int:
    """Write the network as a checkpoint, which `deepem forward` and `--pretrain` read."""
    card = _card(folder)
    weights = loading.load_tensors(folder / WEIGHTS)
    number = int(card["run"]["iter"])
    more = {name: card[name] for name in ("intensity",) if card.get(name) is not None}
    state = {**card["run"], **more, "state_dict": weights, "provenance": card.get("trained", {})}
    checkpoint.write(checkpoint.path_of(folder / "models", number), state)
    return number
