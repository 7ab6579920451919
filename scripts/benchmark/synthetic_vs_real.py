"""Print how a synthetic volume compares with a real one: borders, membranes, grey values, noise.

    python scripts/benchmark/synthetic_vs_real.py --real DATA/fib25

DATA/fib25 holds img.h5 and seg.h5. All figures are taken section by section, in the plane of y and x:

- quantiles: the grey values that 1, 5, 25, 50, 75, 95 and 99 % of the voxels lie below;
- inside, border: mean and standard deviation of the grey value 4 voxels or more from where instances touch, and on
  the two voxels where they do; one cell: the median of the deviations inside single cells;
- contrast: (mean inside - mean on borders) / standard deviation inside;
- profile: mean grey 0.5, 1.5, 2.5, ... voxels from a border; membrane: its full width at half depth, in voxels;
- threshold AUC: how well darkness alone, after a light blur, tells borders from insides: 1 would be a trivial task;
- noise: standard deviation of the differences of neighbouring voxels / sqrt 2, and the correlation of neighbours;
- profiles: how many instances a section shows, and the radius of the disc of their area at the quantiles 10 50 90;
- border share: how many of the voxels are on a border.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.data.emio import imread
from deepem.data.synth.fields import depth
from deepem.data.synth.volume import make_volume


def measure(img: np.ndarray, seg: np.ndarray) -> dict[str, float | list[float]]:
    """The figures of one volume, (Z, Y, X) uint8 and instance ids."""
    deep = np.stack([depth(section) for section in seg])
    grey = img.astype(np.float32)
    cell, far, near = seg > 0, deep >= 4, deep < 1
    inside, border = grey[cell & far], grey[cell & near]
    profile = [float(grey[cell & (deep >= d) & (deep < d + 1)].mean()) for d in range(12)]
    blurred = np.stack([cv2.GaussianBlur(section, (0, 0), 1.0) for section in grey])
    step = np.diff(grey, axis=2)[far[:, :, 1:] & far[:, :, :-1]]
    return {
        "quantiles": np.percentile(img, [1, 5, 25, 50, 75, 95, 99]).tolist(),
        "inside": [float(inside.mean()), float(inside.std())],
        "border": [float(border.mean()), float(border.std())],
        "one cell": one_cell(grey, np.where(far, seg, 0)),
        "contrast": float((inside.mean() - border.mean()) / inside.std()),
        "profile": profile[:8],
        "membrane": width(profile),
        "threshold AUC": auc(-blurred[cell & near], -blurred[cell & far]),
        "noise": float(step.std() / 2**0.5),
        "correlation": float(1 - step.var() / 2 / inside.var()),
        "profiles": float(np.mean([len(np.unique(section)) for section in seg])),
        "radius": radii(seg),
        "border share": float(near.mean()),
    }


def one_cell(grey: np.ndarray, seg: np.ndarray) -> float:
    """Median standard deviation inside a cell, over the sixty largest."""
    ids, count = np.unique(seg[seg > 0], return_counts=True)
    return float(np.median([grey[seg == i].std() for i in ids[np.argsort(-count)][:60]]))


def width(profile: list[float]) -> float:
    """Full width at half depth of a symmetric dark line; profile[i] is the grey i + 0.5 voxels from its middle."""
    half = (profile[0] + float(np.mean(profile[7:]))) / 2
    i = next(i for i, grey in enumerate(profile) if grey > half)
    return 2 * (i - 0.5 + (half - profile[i - 1]) / (profile[i] - profile[i - 1]))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the curve of a score that should be higher for the first set."""
    rng = np.random.default_rng(0)
    positive, negative = (rng.choice(a, min(len(a), 200_000), replace=False) for a in (positive, negative))
    rank = rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    return float((rank / len(positive) - (len(positive) + 1) / 2) / len(negative))


def radii(seg: np.ndarray) -> list[float]:
    """Quantiles 10, 50, 90 of the radius of the disc with the area of each instance in each section."""
    area = np.concatenate([np.unique(section[section > 0], return_counts=True)[1] for section in seg[::5]])
    return np.percentile(np.sqrt(area[area > 12] / np.pi), [10, 50, 90]).tolist()


def written(figure: float | list[float]) -> str:
    """A figure in few digits."""
    if isinstance(figure, list):
        return " ".join(f"{value:.0f}" for value in figure)
    return f"{figure:.3g}"


def main() -> None:
    """Print both columns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder with img.h5 and seg.h5")
    parser.add_argument("--id", default="v1", help="id of the synthetic volume")
    parser.add_argument("--size", default="16,512,512", help="size of the synthetic volume, z,y,x")
    args = parser.parse_args()
    z, y, x = (int(n) for n in args.size.split(","))
    made = make_volume(args.id, (z, y, x))
    real = measure(imread(args.real / "img.h5"), imread(args.real / "seg.h5"))
    synthetic = measure(made["img"], made["seg"])
    print(f"{'':15s}{'real':35s}synthetic")
    for name, figure in real.items():
        print(f"{name:15s}{written(figure):35s}{written(synthetic[name])}")


if __name__ == "__main__":
    main()
