"""What `deepem check` finds in arrays, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepem.data.examine.image import image_findings
from deepem.data.examine.label import id_findings
from deepem.data.examine.volume import between, gap_findings, unrelated_findings
from deepem.data.synth.volume import make_volume

SIZE_NM = (40, 8, 8)


@pytest.fixture(scope="module")
def tissue() -> list[dict[str, Any]]:
    """Two synthetic volumes with sections of 40 nm."""
    made = [make_volume(name, (20, 96, 96)) for name in ("v1", "v2")]
    return [{key: np.asarray(volume[key]) for key in ("img", "seg")} for volume in made]


def codes(found: list[Any]) -> list[str]:
    return [one.code for one in found]


def test_a_block_of_sections_in_reverse_is_out_of_order(tissue):
    image = tissue[0]["img"].copy()
    assert image_findings(image, SIZE_NM) == []
    image[8:14] = image[8:14][::-1].copy()
    (found,) = image_findings(image, SIZE_NM)
    assert (found.code, found.what[:18]) == ("out of order", "sections 8 to 13 f")


@pytest.mark.parametrize(
    ("size_nm", "told"),
    [((0.04, 0.008, 0.008), "micrometres"), ((8, 8, 8), "z changes"), ((8, 8, 40), "smallest along z")],
)
def test_a_voxel_size_that_the_image_contradicts_is_told(tissue, size_nm, told):
    (found,) = image_findings(tissue[0]["img"], size_nm)
    assert found.code == "voxel size"
    assert told in found.what


def test_a_section_without_labels_is_a_fault_unless_it_is_masked(tissue):
    label = tissue[0]["seg"].copy()
    assert gap_findings(label, []) == []
    label[7] = 0
    assert codes(gap_findings(label, [])) == ["empty section"]
    assert "1 of the sections (7)" in gap_findings(label, [])[0].what
    assert id_findings(label) == [], "bodies on both sides of it are the same bodies"
    mask = np.ones(label.shape, np.uint8)
    assert codes(gap_findings(label, [mask])) == ["empty section"]
    mask[7] = 0
    assert gap_findings(label, [mask]) == []
    label[::2] = 0
    assert gap_findings(label, []) == [], "labels in every other section are no oversight"


def test_the_label_of_another_volume_is_unrelated(tissue):
    (image, label), (_, other) = (volume.values() for volume in tissue)
    assert unrelated_findings(image, label) == []
    assert codes(unrelated_findings(image, other)) == ["unrelated"]
    assert unrelated_findings(image, np.zeros_like(label)) == [], "without edges, nothing can be told"


def test_of_two_volumes_of_opposite_contrast_either_may_be_inverted(tissue):
    (image, label), (more, other) = (volume.values() for volume in tissue)
    pairs = {"a": (image, label), "b": (255 - more, other)}
    (found,) = between(pairs)
    assert (found.code, found.where) == ("inverted", "a img, b img")
    assert "do not tell which" in found.what
    (found,) = between({**pairs, "c": (image, label)})
    assert (found.code, found.where) == ("inverted", "b img")
