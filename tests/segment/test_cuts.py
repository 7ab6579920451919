"""The same segments however the volume is cut, and perfect ones from perfect affinities."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.volumes import (
    LONG,
    XYZ,
    adapted_rand_error,
    cells,
    noisy,
    oracle,
    pieces,
    random_affinities,
)

from deepem.segment import segment, sweep

SIZES = st.tuples(*(st.sampled_from((1, 2, 3, n // 2, n - 1, n, n + 2)) for n in (9, 10, 11))).filter(
    lambda s: np.prod(s) > 11
)
ANY_CUT = {"agglomerate": XYZ, "components": XYZ, "mutex": LONG, "objects": None}


def prediction(decoder, shape=(9, 10, 11), seed=0, levels=None):
    edges = ANY_CUT[decoder]
    return random_affinities(shape, 1 if edges is None else len(edges), seed, levels), edges


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("decoder", ANY_CUT)
@given(block=SIZES, seed=st.integers(0, 99), masked=st.booleans())
@settings(max_examples=8, deadline=None)
def test_the_cut_does_not_matter(decoder, levels, block, seed, masked):
    values, edges = prediction(decoder, seed=seed, levels=levels)
    mask = np.random.default_rng(seed).random((9, 10, 11)) > 0.2 if masked else None
    given = {"edges": edges, "decoder": decoder, "threshold": 0.45, "mask": mask, "min_size": 2}
    whole = segment(values, block_size=(9, 10, 11), **given)
    np.testing.assert_array_equal(segment(values, block_size=block, **given), whole)
    assert whole.any()


@pytest.mark.parametrize("decoder", ANY_CUT)
def test_the_cut_does_not_matter_where_objects_span_many_blocks(decoder):
    edges = ANY_CUT[decoder]
    values = noisy(cells(), edges or XYZ)[: 1 if edges is None else None]
    given = {"edges": edges, "decoder": decoder, "threshold": 0.95 if decoder == "components" else 0.6}
    whole = segment(values, **given)
    assert 4 < len(np.unique(whole)) < 3000
    for block in ((20, 48, 44), (7, 16, 16), (3, 48, 5)):
        np.testing.assert_array_equal(segment(values, block_size=block, **given), whole)


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components"])
@pytest.mark.parametrize("block", [None, (7, 13, 50), (20, 16, 9)])
def test_perfect_affinities_give_the_truth(decoder, block):
    labels = cells()
    edges = LONG if decoder == "mutex" else XYZ
    found = segment(oracle(labels, edges), edges=edges, decoder=decoder, block_size=block)
    assert adapted_rand_error(found, pieces(labels)) == 0
    assert not found[labels == 0].any()


@pytest.fixture(params=["fib25", "gala"])
def real(request, shared):
    path = shared / "data" / request.param / "seg.h5"
    if not path.is_file():
        pytest.skip(f"no {path.name} of {request.param} beside the checkout")
    with h5py.File(path) as file:
        yield file["main"]


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components"])
def test_perfect_affinities_of_real_tissue_give_the_truth(real, decoder):
    _check_truth(real[:24, :64, :72], decoder, (10, 64, 31))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components"])
@pytest.mark.parametrize("block", [None, (64, 128, 128), (33, 250, 71)])
def test_perfect_affinities_of_whole_volumes_give_the_truth(real, decoder, block):
    _check_truth(real[:], decoder, block)


def _check_truth(labels, decoder, block):
    edges = LONG if decoder == "mutex" else XYZ
    found = segment(oracle(labels, edges), edges=edges, decoder=decoder, block_size=block)
    assert adapted_rand_error(found, pieces(labels)) == 0


def test_ids_are_the_least_voxel_of_each_segment():
    found = segment(noisy(cells()), threshold=0.6, block_size=(8, 17, 50))
    ids, first = np.unique(found, return_index=True)
    np.testing.assert_array_equal(ids[ids > 0], first[ids > 0] + 1)
    assert found.dtype == np.uint64


@pytest.mark.parametrize("decoder", ["agglomerate", "mutex", "components"])
def test_several_thresholds_equal_one_by_one(decoder):
    edges = LONG if decoder == "mutex" else XYZ
    values = noisy(cells(), edges)
    thresholds = (0.4, 0.8, 0.6)
    found = list(sweep(values, thresholds, edges=edges, decoder=decoder, block_size=(9, 20, 44)))
    assert [threshold for threshold, _ in found] == list(thresholds)
    for threshold, ids in found:
        np.testing.assert_array_equal(ids, segment(values, edges=edges, decoder=decoder, threshold=threshold))
    assert len({len(np.unique(ids)) for _, ids in found}) == 3


def test_arguments_are_unchanged():
    values, mask = noisy(cells((6, 12, 12))), np.ones((6, 12, 12), np.uint8)
    mask[:, 3] = 0
    before = values.copy(), mask.copy()
    for decoder in ("agglomerate", "components"):
        segment(values, decoder=decoder, mask=mask, min_size=3)
        segment((values * 65535).astype(np.uint16), decoder=decoder, mask=mask)
    np.testing.assert_array_equal(values, before[0])
    np.testing.assert_array_equal(mask, before[1])
