"""The recipes: their flags, their numbers, what acts in validation, and that each makes samples."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from deepem.cli.flags import Flag
from deepem.cli.plugins import load, siblings
from deepem.cli.signatures import flags, flags_unloaded
from deepem.data.transform import Augment, Spec

RECIPES = siblings("augment")
SPEC = Spec({"img": (12, 48, 49), "seg": (12, 48, 49), "msk": (11, 40, 40)}, ("img",), ("seg",))
ON: dict[str, Any] = {
    "operations": '["Flip"]',
    "recompute": True,
    "grayscale": True,
    "warping": True,
    "missing": 7,
    "blur": 7,
    "box": "noise",
    "lost": True,
    "random": True,
    "interp": True,
    "misalign": 9,
    "mip": 1,
    "rotate": True,
    "elastic": True,
    "noise": True,
    "motion": 7,
    "misalign_rot": 5.0,
}


def recipe(name: str, is_train: bool = True, **given: Any) -> Augment:
    made: Augment = importlib.import_module(f"deepem.data.augment.{name}").get_augmentation(is_train, **given)
    return made


def everything(name: str) -> dict[str, Any]:
    return {flag.name: ON[flag.name] for flag in flags_unloaded("augment", name)}


def drawn(name: str, is_train: bool = True, **changed: Any) -> list[str]:
    later = {flag: type(ON[flag])() for flag in ("motion", "misalign_rot") if flag in everything(name)}
    return repr(recipe(name, is_train, **everything(name) | later | changed)).splitlines()


def test_all_public_names_are_there() -> None:
    assert set(RECIPES) >= {
        "no_aug",
        "flip_rotate",
        "grayscale_warping",
        "flyem.aug_mip1",
        "isotropic",
        "kasthuri11.aug_v2",
        "kasthuri11.aug_v2_valid",
        "pinky_basil.aug_mip0_v0",
        "pinky_basil.aug_mip0_valid0",
        "pinky_basil.aug_mip1_v0",
        "pinky_basil.aug_mip1_v1",
        "pinky_basil.aug_mip1_v2",
        "pinky_basil.aug_mip1_v2_2",
        "pinky_basil.aug_mip1_v3",
    }


def test_flags_agree_between_recipes_and_have_help() -> None:
    seen: dict[str, Flag] = {}
    for name in RECIPES:
        for flag in flags("augment", load("augment", name)):
            first = seen.setdefault(flag.name, flag)
            assert (flag.type, flag.default, flag.help) == (first.type, first.default, first.help), (name, flag.name)
            assert flag.help
    defaults = {name: flag.default for name, flag in seen.items()}
    off: dict[str, Any] = dict.fromkeys(ON, False) | {"missing": 0, "blur": 0, "misalign": 0, "mip": 0, "box": None}
    off["operations"] = "[]"
    assert defaults == off


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_samples_are_made_and_repeat(name: str, full: bool, is_train: bool) -> None:
    augment = recipe(name, is_train, **everything(name) if full else {})
    for seed in range(6):
        made = []
        for _ in range(2):
            rng = np.random.default_rng([5, seed])
            request, apply = augment.prepare(SPEC, rng)
            size = request.size
            volume = np.random.default_rng(seed)
            sample = apply(
                {
                    "img": volume.integers(0, 256, (1, *size["img"]), np.uint8),
                    "seg": volume.integers(0, 9, (1, *size["seg"]), np.int32),
                    "msk": volume.integers(0, 2, (1, *size["msk"]), np.uint8),
                }
            )
            assert {k: a.shape[1:] for k, a in sample.items()} == dict(SPEC.size)
            made.append(sample)
        assert all(np.array_equal(made[0][k], made[1][k]) for k in SPEC.size)


def test_without_flags_nothing_but_poses_and_grey_values_and_shifts() -> None:
    assert repr(recipe("no_aug")) == "Compose"
    assert repr(recipe("no_aug", False)).splitlines()[1:] == ["└─ FlipRotate()"]
    assert repr(recipe("grayscale_warping")).splitlines()[1:] == ["└─ FlipRotate()"]
    plain = repr(recipe("flyem.aug_mip1"))
    assert "MissingSection" not in plain
    assert "Box" not in plain
    assert "Blurry" not in plain
    assert "Lost" not in plain


GREY = "MixedGrayscale2D(contrast_factor=0.5, brightness_factor=0.5, prob=1, skip=0.3, individual=True)"


def test_grayscale_warping() -> None:
    lines = drawn("grayscale_warping")
    assert lines[:3] == ["Compose", "├─ Label()", f"├─ {GREY}"]
    assert lines[3].startswith(
        "├─ Warp(skip=0.3, rot_max=45.0, shear_max=3.0, scale_max=1.1, stretch_max=0.1, do_twist=False"
    )
    assert lines[4:] == ["└─ FlipRotate()"]
    assert drawn("grayscale_warping", False) == ["Compose", "├─ Label()", "└─ FlipRotate()"]


SHIFTS = """├─ Blend
│  ├─ 0.25  Blend
│  │  ├─ 0.7  Compose
│  │  │  ├─ Misalign(disp=(0, 5), margin=1)
│  │  │  ├─ Misalign(disp=(0, 15), margin=1)
│  │  │  └─ Misalign(disp=(0, 25), margin=1)
│  │  └─ 0.3  Compose
│  │     ├─ SlipMisalign(disp=(0, 5), margin=1, interp=True)
│  │     ├─ SlipMisalign(disp=(0, 15), margin=1, interp=True)
│  │     └─ SlipMisalign(disp=(0, 25), margin=1, interp=True)
│  ├─ 0.25  Blend
│  │  ├─ 0.5  MisalignPlusMissing(disp=(3, 15), margin=1, value=0)
│  │  └─ 0.5  MisalignPlusMissing(disp=(3, 15), margin=1, value=0, random=True)
│  ├─ 0.25  Blend
│  │  ├─ 0.333  MixedMissingSection(value=0, random=False, maxsec=7, skip=0, individual=True)
│  │  ├─ 0.333  MixedMissingSection(value=0, random=True, maxsec=7, skip=0, individual=True)
│  │  └─ 0.333  MissingSection(value=0, random=True, maxsec=7, skip=0, individual=False)
│  └─ 0.25  Blend
│     ├─ 0.333  LostSection(nsec=1, skip=0)
│     ├─ 0.333  LostPlusMissing(skip=0, value=0, random=True)
│     └─ 0.333  LostPlusMissing(skip=0, value=0)""".splitlines()
NOISE = "NoiseBox(sigma=(1, 3), dims=(5, 25), aniso=10, density=0.3, margin=(1, 5, 5), individual=True, skip=0.1)"


def test_flyem_in_training() -> None:
    lines = drawn("flyem.aug_mip1")
    assert lines[1:-4] == [f"├─ {GREY}", *SHIFTS]
    assert lines[-4] == f"├─ {NOISE}"
    assert lines[-3].startswith("├─ MixedBlurrySection(sigma=5.0, random=True, maxsec=7")
    assert lines[-2].startswith("├─ Warp(skip=0.3, rot_max=45.0")
    assert lines[-1] == "└─ FlipRotate()"


def test_flyem_in_validation_loses_and_boxes_and_warps_nothing() -> None:
    text = "\n".join(drawn("flyem.aug_mip1", False))
    assert "Warp" not in text
    assert "Box" not in text
    assert "Lost" not in text
    assert text.count("MissingSection") == 1
    assert "0.333  MixedMissingSection(value=0, random=False" in text
    assert "0.333  MisalignPlusMissing(disp=(3, 15), margin=1, value=0)" in text
    assert GREY in text


def test_v3_is_flyem_with_the_boxes_first() -> None:
    flyem = drawn("flyem.aug_mip1")
    moved = [flyem[0], flyem[-4], *flyem[1:-4], *flyem[-3:]]
    assert drawn("pinky_basil.aug_mip1_v3") == moved


def test_v2_is_v3_in_white_and_v2_2_in_black() -> None:
    v2, v2_2, v3 = (drawn(f"pinky_basil.aug_mip1_{v}") for v in ("v2", "v2_2", "v3"))
    assert [line.replace("value=1", "value=0") for line in v2] == v2_2
    assert v2[-14:-3] == [line.replace("value=0", "value=1") for line in v3[-14:-3]]
    assert sum("0.7  Misalign" in line for line in v2) == 3
    assert "interp=True" not in "\n".join(drawn("pinky_basil.aug_mip1_v2", interp=False))


def test_v0_and_v1_differ_in_fills_and_missing_sections() -> None:
    v0, v1 = ("\n".join(drawn(f"pinky_basil.aug_mip1_{v}")) for v in ("v0", "v1"))
    assert "0.25  MisalignPlusMissing(disp=(3, 15), margin=1, value=0, random=True)" in v0
    assert "0.25  MisalignPlusMissing(disp=(3, 15), margin=1, value=0)" in v1
    assert "0.25  MixedMissingSection(value=0, random=True, maxsec=7, skip=0, individual=False)" in v0
    assert v1.count("0.333  MixedMissingSection") == 3
    assert v0.count("LostSection(nsec=1") == v1.count("LostSection(nsec=1") == 2
    for name in ("v0", "v1"):
        text = "\n".join(drawn(f"pinky_basil.aug_mip1_{name}", False))
        assert "random=True, individual" not in text
        assert "LostSection" in text
        assert "Warp" not in text


def test_mip0_doubles_displacements_and_boxes() -> None:
    text = "\n".join(drawn("pinky_basil.aug_mip0_v0"))
    for part in ("(0, 10)", "(0, 30)", "(0, 50)", "(5, 30)", "dims=(10, 50)", "margin=(1, 10, 10)", "value=1"):
        assert part in text
    assert drawn("pinky_basil.aug_mip0_valid0", False) == ["FlipRotate()"]
    assert "\n".join(drawn("pinky_basil.aug_mip0_valid0")).count("individual=False, skip") == 0


@pytest.mark.parametrize(("mip", "dims", "aniso"), [(0, "(6, 30)", "5.0"), (1, "(3, 15)", "2.5")])
def test_kasthuri_boxes_shrink_with_mip(mip: int, dims: str, aniso: str) -> None:
    text = "\n".join(drawn("kasthuri11.aug_v2", box="fill", mip=mip))
    assert f"FillBox(value=0, random=True, dims={dims}, aniso={aniso}, density=0.3" in text


def test_kasthuri_acts_in_validation_where_it_says_so() -> None:
    assert drawn("kasthuri11.aug_v2", False) == ["Compose", "├─ FlipRotate()", "└─ Label()"]
    valid = "\n".join(drawn("kasthuri11.aug_v2_valid", False))
    for part in (GREY, "0.5  Misalign(disp=(0, 9)", "0.2  SlipMisalign", "0.3  nothing", "skip=0.1", "Blurry"):
        assert part in valid
    assert "Box" not in valid
    assert "Warp" not in valid
    assert "interp=True" not in "\n".join(drawn("kasthuri11.aug_v2_valid_no_interp"))
    assert "interp=True" in valid


def test_isotropic_has_all_poses_and_in_training_what_its_flags_ask_for() -> None:
    poses = "FlipRotate(isotropic=True)"
    assert drawn("isotropic", False) == ["Compose", f"├─ {poses}", "└─ Label()"]
    assert repr(recipe("isotropic")).splitlines()[-1] == f"└─ {poses}"
    assert len(repr(recipe("isotropic")).splitlines()) == 3
    names = [line.lstrip("├└─ ").partition("(")[0] for line in drawn("isotropic") if line[0] in "├└"]
    assert names == ["Rotate", "Warp", "Grayscale3D", "Blend", "FlipRotate", "NoiseBox", "Label"]
    assert "skip=0.5" in drawn("isotropic")[1]


@pytest.mark.parametrize("name", ["flyem.aug_mip1", "pinky_basil.aug_mip1_v3", "kasthuri11.aug_v2"])
def test_motion_and_rotated_misalignment_have_flags(name: str) -> None:
    on, off = drawn(name, motion=3, misalign_rot=5.0), drawn(name)
    assert [line for line in on if "MotionBlur" in line]
    assert not [line for line in off if "MotionBlur" in line]
    assert [line for line in on if "Misalign(" in line and "rot=5.0" in line]
    assert not [line for line in off if "rot=5.0" in line]
