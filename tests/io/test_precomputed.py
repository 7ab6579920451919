"""Volumes behind cloud-volume, through real ``file://`` ones on asymmetric volumes, and each of its traps."""

import numpy as np
import pytest

from deepem.io.addresses import refuse_unknown_protocol
from deepem.io.chunks import get, put
from deepem.io.cloud_sink import CloudSink, Layout, make_volume
from deepem.io.precomputed import CloudSource
from deepem.io.pyramid import downsample
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

cloudvolume = pytest.importorskip("cloudvolume")

SIZE = (7, 37, 29)  # z, y, x
CORNER = (5, 20, 10)


def volume_at(path, mip=0):
    return cloudvolume.CloudVolume(path, mip=mip, progress=False)


@pytest.mark.parametrize("path", ["a/b", "/a", "file:///a", "gs://a", "s3://https://host/a", "precomputed://gs://a"])
def test_paths_that_work_are_taken(path):
    refuse_unknown_protocol(path)
    refuse_unknown_protocol(path, written=True)


def test_levels_are_means_of_four_also_where_the_finer_one_ends(tmp_path):
    path = f"file://{tmp_path}/v"
    layout = Layout(Box((0, 1, 3), (3, 20, 40)), (40, 4, 4), (2, 8, 8))
    volume = make_volume(path, 2, layout, {})
    array = np.random.default_rng(0).random((2, 3, 19, 37)).astype(np.float32)
    put(volume, layout.bounds, array)
    assert downsample(path) == 3
    assert (tmp_path / "v/8.0_8.0_40.0").is_dir() or (tmp_path / "v/8_8_40").is_dir()
    coarse = volume_at(path, 1)
    assert tuple(coarse.resolution) == (8, 8, 40)
    begin, end = tuple(coarse.bounds.minpt), tuple(coarse.bounds.maxpt)
    found = get(coarse, Box(begin[::-1], end[::-1]))
    for (y, x), value in np.ndenumerate(found[0, 1]):
        ys = [v - 1 for v in (2 * (y + begin[1]), 2 * (y + begin[1]) + 1)]
        xs = [v - 3 for v in (2 * (x + begin[0]), 2 * (x + begin[0]) + 1)]
        four = [array[0, 1, min(max(a, 0), 18), min(max(b, 0), 36)] for a in ys for b in xs]
        assert abs(np.mean(four) - value) < 1e-6


def small(tmp_path, channels=4):
    layout = Layout(Box((0, 0, 0), (4, 8, 16)), (40, 4, 4), (4, 8, 8))
    return make_volume(f"file://{tmp_path}/v", channels, layout, {}), layout


@pytest.mark.parametrize("shape", [(4, 8, 16), (1, 4, 8, 16), (3, 4, 8, 16)])
def test_what_is_not_of_the_volumes_channels_is_not_written(tmp_path, shape):
    volume, layout = small(tmp_path)
    with pytest.raises(ValueError, match="float32"):
        put(volume, layout.bounds, np.zeros(shape, np.float32))


def test_what_is_not_of_the_volumes_type_is_not_written(tmp_path):
    volume, layout = small(tmp_path)
    with pytest.raises(ValueError, match="float64"):
        put(volume, layout.bounds, np.zeros((4, 4, 8, 16)))


def test_channels_come_back_in_order(tmp_path):
    volume, layout = small(tmp_path)
    array = np.random.default_rng(0).random((4, 4, 8, 16)).astype(np.float32)
    put(volume, layout.bounds, array)
    np.testing.assert_array_equal(get(volume, layout.bounds), array)


def test_missing_chunks_of_the_input_are_zeros(stored, tmp_path):
    path, array = stored
    victim = sorted((tmp_path / "em").glob("4*/*"))[0]
    victim.unlink()
    source = CloudSource(path)
    found = source.read(Box((0, 0, 0), SIZE))[0]
    assert source.absent == {f"{victim.parent.name}/{victim.name.removesuffix('.gz')}"}
    assert (found == 0).sum() == 16 * 8 * 4
    assert np.array_equal(found[found > 0], array[found > 0])


@pytest.mark.parametrize("damage", ["cut short", "empty", "nonsense"])
@pytest.mark.parametrize("compress", ["gzip", False])
def test_a_chunk_that_cannot_be_read_is_named(tmp_path, compress, damage):
    array = np.random.default_rng(0).integers(1, 256, SIZE, np.uint8)
    path = f"file://{tmp_path}/em"
    cloudvolume.CloudVolume.from_numpy(
        array.transpose(2, 1, 0)[..., None].copy(), path, resolution=(4, 4, 40), voxel_offset=(10, 20, 5),
        chunk_size=(16, 8, 4), compress=compress, progress=False,
    )  # fmt: skip
    (victim,) = (tmp_path / "em").glob("4*/26-39_28-36_9-12*")
    held = victim.read_bytes()
    victim.write_bytes({"cut short": held[:-9], "empty": b"", "nonsense": b"nothing"}[damage])
    with pytest.raises(InputError) as caught:
        CloudSource(path).read(Box((1, 2, 3), SIZE))
    assert str(caught.value).startswith(f"{path}/{victim.parent.name}/26-39_28-36_9-12: got an ")
    whole = Box((0, 0, 0), (7, 8, 29))
    np.testing.assert_array_equal(CloudSource(path).read(whole)[0], array[whole.slices()])


def test_a_volume_is_read_z_y_x_at_its_place(stored):
    path, array = stored
    source = CloudSource(path)
    assert (source.size, source.origin, source.voxel_size_nm) == (SIZE, CORNER, (40, 4, 4))
    box = Box((1, 2, 3), (6, 30, 20))
    np.testing.assert_array_equal(source.read(box)[0], array[box.slices()])
    assert source.read(box).flags.c_contiguous


def test_planes_wait_until_a_chunk_is_full(tmp_path):
    layout = Layout(Box((2, 0, 0), (13, 8, 8)), (40, 4, 4), (4, 8, 8))
    array = np.random.default_rng(0).random((1, 11, 8, 8)).astype(np.float32)
    with CloudSink({"a": f"file://{tmp_path}/v"}, {"a": 1}, layout, (2, 0, 0)) as sink:
        written = []
        store = sink.store
        sink.store = lambda name, box, value: (written.append((box.begin[0], box.end[0])), store(name, box, value))
        for begin, end in ((0, 3), (3, 5), (5, 10), (10, 11)):
            sink.write(Box((begin, 0, 0), (end, 8, 8)), {"a": array[:, begin:end]}, end == 11)
    assert written == [(2, 6), (6, 10), (10, 13)]
    np.testing.assert_array_equal(get(sink.volumes["a"], layout.bounds), array)


def test_the_array_and_the_command_line_are_x_y_z_in_fortran_order_and_ours_is_not(tmp_path):
    """A volume of which every voxel says where it is, through both orders."""
    layout = Layout(Box((1, 2, 3), (5, 10, 19)), (40, 4, 5), (4, 8, 8))
    volume = make_volume(f"file://{tmp_path}/v", 1, layout, {})
    z, y, x = np.meshgrid(*(np.arange(b, e) for b, e in zip(*layout.bounds, strict=True)), indexing="ij")
    put(volume, layout.bounds, (z * 10_000 + y * 100 + x)[None].astype(np.float32))
    stored = cloudvolume.CloudVolume(f"file://{tmp_path}/v", progress=False)
    assert np.asarray(stored[3:19, 2:10, 1:5]).flags.f_contiguous
    assert float(np.asarray(stored[17, 9, 4]).ravel()[0]) == 40_917
    part = Box((2, 3, 5), (4, 9, 18))
    found = get(volume, part)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found[0], 10_000 * z[1:3, 1:7, 2:15] + 100 * y[1:3, 1:7, 2:15] + x[1:3, 1:7, 2:15])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tensorstore_reads_what_we_wrote(tmp_path, dtype):
    """It takes a chunk with the suffix .gz for one never written, and gives zeros."""
    tensorstore = pytest.importorskip("tensorstore")
    layout = Layout(Box((1, 2, 3), (6, 12, 19)), (40, 4, 4), (4, 8, 8), dtype)
    volume = make_volume(f"file://{tmp_path}/v", 3, layout, {})
    array = (np.random.default_rng(0).random((3, *layout.bounds.size)) * 255).astype(dtype)
    put(volume, layout.bounds, array)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{tmp_path}/v/"}}
    found = tensorstore.open(spec).result().read().result()
    np.testing.assert_array_equal(np.asarray(found).transpose(3, 2, 1, 0), array)


def test_a_compressed_chunk_of_the_same_name_does_not_outlive_a_new_one(tmp_path):
    volume, layout = small(tmp_path, 1)
    gzipped = cloudvolume.CloudVolume(f"file://{tmp_path}/v", progress=False)
    gzipped[0:16, 0:8, 0:4] = np.ones((16, 8, 4, 1), np.float32)
    assert len(list(tmp_path.glob("v/4*/*.gz"))) == 2
    put(volume, layout.bounds, np.full((1, 4, 8, 16), 7, np.float32))
    assert (get(volume, layout.bounds) == 7).all()
    assert not list(tmp_path.glob("v/4*/*.gz"))


@pytest.mark.parametrize("box", [Box((0, 0, 0), (3, 8, 16)), Box((0, 1, 0), (4, 8, 16)), Box((0, 0, 0), (4, 8, 12))])
def test_a_box_that_cuts_chunks_in_two_is_not_written(tmp_path, box):
    volume, layout = small(tmp_path)
    put(volume, layout.bounds, np.ones((4, 4, 8, 16), np.float32))
    with pytest.raises(ValueError, match="in two"):
        put(volume, box, np.zeros((4, *box.size), np.float32))
    assert (get(volume, layout.bounds) == 1).all()


@pytest.mark.parametrize(("encoding", "most"), [("raw", 0), ("jpeg", 12), ("compressed_segmentation", None)])
def test_inputs_in_other_encodings_are_read_or_refused(tmp_path, encoding, most):
    grey = np.random.default_rng(0).integers(100, 110, (8, 16, 16))
    kind = np.uint8 if most is not None else np.uint32
    path = f"file://{tmp_path}/v"
    cloudvolume.CloudVolume.from_numpy(
        grey.transpose(2, 1, 0)[..., None].astype(kind), path, resolution=(4, 4, 40), chunk_size=(8, 8, 4),
        encoding=encoding, progress=False, layer_type="image" if most is not None else "segmentation",
    )  # fmt: skip
    if most is None:
        with pytest.raises(InputError, match="uint32"):
            CloudSource(path)
        return
    found = CloudSource(path).read(Box((0, 0, 0), (8, 16, 16)))[0]
    assert np.abs(found.astype(int) - grey).max() <= most


def test_floats_that_training_has_never_seen_are_refused(tmp_path):
    path = f"file://{tmp_path}/v"
    grey = np.full((16, 16, 4, 1), 200, np.float32)
    cloudvolume.CloudVolume.from_numpy(grey, path, resolution=(4, 4, 40), chunk_size=(8, 8, 4), progress=False)
    with pytest.raises(InputError, match="from 200 to 200"):
        CloudSource(path).read(Box((0, 0, 0), (4, 16, 16)))


@pytest.mark.parametrize(
    ("voxel_size", "factor"),
    [((40, 4, 4), (1, 2, 2)), ((4, 4, 4), (2, 2, 2)), ((8, 4, 4), (1, 2, 2)), ((30, 16, 16), (2, 2, 2)),
     ((40, 3.58, 3.58), (1, 2, 2)), ((4.5, 4, 4), (2, 2, 2))],
)  # fmt: skip
def test_levels_go_towards_voxels_of_equal_sides(tmp_path, voxel_size, factor):
    path = f"file://{tmp_path}/v"
    bounds = Box((3, 1, 4), (8, 20, 23))
    volume = make_volume(path, 1, Layout(bounds, voxel_size, (2, 8, 8)), {})
    array = np.random.default_rng(0).random((1, *bounds.size)).astype(np.float32)
    put(volume, bounds, array)
    assert downsample(path, 1) == 2
    coarse = volume_at(path, 1)
    np.testing.assert_allclose(tuple(coarse.resolution)[::-1], np.multiply(voxel_size, factor))
    begin, end = (tuple(corner)[::-1] for corner in (coarse.bounds.minpt, coarse.bounds.maxpt))
    found = get(coarse, Box(begin, end))[0]
    for index, value in np.ndenumerate(found):
        covered = [
            np.clip(np.arange(f * (i + b), f * (i + b + 1)) - n, 0, m - 1)
            for i, b, f, n, m in zip(index, begin, factor, bounds.begin, bounds.size, strict=True)
        ]
        assert abs(array[0][np.ix_(*covered)].mean() - value) < 1e-6


@pytest.mark.parametrize("voxel_size", [(40, 3.58, 3.58), (1, 0.5, 0.5), (29.9, 4, 4)])
def test_a_resolution_that_is_no_whole_number_is_kept_and_compared(tmp_path, voxel_size):
    path = f"file://{tmp_path}/v"
    layout = Layout(Box((0, 0, 0), (4, 8, 16)), voxel_size, (4, 8, 8))
    for _ in range(2):  # the second run fits the volume of the first
        make_volume(path, 1, layout, {})
    assert CloudSource(path).voxel_size_nm == voxel_size
    other = Layout(layout.bounds, (voxel_size[0], voxel_size[1], round(voxel_size[2] * 1.1, 3)), layout.chunk)
    with pytest.raises(InputError, match="a volume there of"):
        make_volume(path, 1, other, {})
