"""Draw the picture of `deepem check`: the middle sections of each volume, in yx and zx, without and with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepem.tools.checkup import Report

Picture = NDArray[np.uint8]

SIDE, HEAD, GAP = 320, 22, 4
OUTLINE = (60, 200, 255)
FAULT = (80, 80, 255)


def write(path: Path, report: Report) -> None:
    """Draw all volumes, one below the other.

    Raises:
        OSError: the file cannot be written.
    """
    rows = [_row(name, report) for name in report.pictures]
    width = max(row.shape[1] for row in rows)
    drawn = np.concatenate([np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows])
    done, data = cv2.imencode(".png", drawn)
    if not done:
        raise OSError("the picture cannot be encoded")
    path.write_bytes(data.tobytes())


def _row(name: str, report: Report) -> Picture:
    image, label = report.pictures[name]
    z, y, _ = (n // 2 for n in image.shape)
    views = []
    for index in (np.s_[z], np.s_[:, y]):
        grey = _grey(image[index])
        plain = _large(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
        views += [plain] if label is None or label.shape != image.shape else [plain, _outlined(plain, label[index])]
    height = max(view.shape[0] for view in views)
    body = np.concatenate([np.pad(v, ((0, height - v.shape[0]), (0, GAP), (0, 0))) for v in views], axis=1)
    mine = [one for one in report.findings if one.where.split(" ")[0] == name]
    head = np.zeros((HEAD, body.shape[1], 3), np.uint8)
    words = f"{name}: {', '.join(dict.fromkeys(one.code for one in mine)) or 'nothing found'}"
    cv2.putText(head, words, (GAP, HEAD - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, FAULT if mine else (255, 255, 255), 1,
                cv2.LINE_AA)  # fmt: skip
    return np.concatenate([head, body])


def _grey(section: NDArray[Any]) -> Picture:
    values = np.nan_to_num(section.astype(np.float32))
    low, high = (float(n) for n in np.percentile(values, (0.5, 99.5)))
    stretched = (values - low) * (255 / max(high - low, 1e-9))
    grey: Picture = stretched.clip(0, 255).astype(np.uint8)
    return grey


def _large(picture: Picture) -> Picture:
    scale = SIDE / picture.shape[1]
    size = SIDE, max(round(picture.shape[0] * scale), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _outlined(picture: Picture, label: NDArray[Any]) -> Picture:
    """Draw the outlines of a label, which may have another size, over a picture."""
    size = picture.shape[1], picture.shape[0]
    ids = np.unique(label, return_inverse=True)[1].reshape(label.shape).astype(np.float32)
    large = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    edge = np.zeros(large.shape, bool)
    edge[:-1] |= large[:-1] != large[1:]
    edge[:, :-1] |= large[:, :-1] != large[:, 1:]
    out: Picture = picture.copy()
    out[edge] = OUTLINE
    return out
