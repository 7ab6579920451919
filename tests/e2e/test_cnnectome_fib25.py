"""FIB-25 trained and stitched in small, by a network without padding and by one with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cnnectome_lab import applied, network, read, rows

from deepem.data.emio import imread, imsave
from deepem.evaluate import binary
from deepem.test.forward import main as forward
from deepem.train.run import main as train
from deepem.utils.edges import edge_slices

NET = "--model cnnectome_unet --downsample_factors 2,2,2 --num_fmaps 8 --fmap_inc_factor 2 --batch_norm --amp off"


@pytest.mark.slow
@pytest.mark.parametrize(("padding", "fov", "last"), [("valid", "36,36,36", 150), ("same", "20,20,20", 500)])
def test_fib25(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: str, fov: str, last: int
) -> None:
    """Both give patches of 20 voxels a side; the padded ones see less tissue, and take more steps to score as well."""
    monkeypatch.chdir(tmp_path)
    steps = f"--max_iter {last} --eval_intv {last // 2} --eval_iter 20 --warm_up 0 --imgs_intv {last} --lr 0.01"
    where = f"--data fib25 --data_dir {shared / 'data'} --aff 1 --size_average --cpu --exp_name fib --num_workers 0"
    train(f"{where} {NET} --padding {padding} --fov {fov} {steps} --augment isotropic".split())
    losses = [row["affinity"] for row in rows("fib", "test")]
    assert losses[-1] < losses[0]
    box = slice(100, 140), slice(20, 140), slice(30, 150)
    image, seg = (imread(shared / "data/fib25" / f"{name}.h5")[box] for name in ("img", "seg"))
    imsave(image, tmp_path / "held/out/img.h5")
    forward(f"--exp_name fib --data_dir {tmp_path / 'held'} --test_ids out --cpu".split())
    found, attributes = read("fib", f"out_affinity_{last}")
    begin = attributes["offset"]
    if padding == "valid":
        assert begin.tolist() == [8, 8, 8]
        np.testing.assert_allclose(found, applied(network("fib", last), image)["affinity"], atol=3e-6)
    else:
        assert found.shape[1:] == image.shape
    ids = seg[tuple(slice(b, b + n) for b, n in zip(begin, found.shape[1:], strict=True))]
    for channel, edge in zip(found, [(0, 0, 1), (0, 1, 0), (1, 0, 0)], strict=True):
        here, there = edge_slices(edge)
        same = (ids[here] == ids[there]) & (ids[here] > 0)
        assert binary(channel[here], same)["auc"] > 0.85
