"""The names that users' own files import, and the arguments that they may pass."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

AUGMENTS = (
    "Augment Blend Compose Flip Transpose FlipRotate Grayscale2D PartialGrayscale2D MixedGrayscale2D Grayscale3D "
    "GrayscaleMixed Section PartialSection MixedSection MissingSection PartialMissingSection MixedMissingSection "
    "BlurrySection PartialBlurrySection MixedBlurrySection LostSection LostPlusMissing Misalign SlipMisalign "
    "MisalignPlusMissing MisalignTrackMissing Track FillBox BlurBox NoiseBox Warp Label MotionBlur"
)
NETWORKS = (
    "RSUNet isoRSUNet RUNet rsunet_gn rsunet_act rsunet_act_gn rsunet_act_in rsunet_act_nn rsunet_act_nn_gn "
    "rsunet_2d3d rsunet_2d3d_gn rsunet_v3 dynamic_rsunet DTU2 vrunet VRUNet"
)
NAMES = {
    "deepem.data.transform": AUGMENTS,
    "deepem.models.emvision": NETWORKS,
    "deepem.models.emvision.layers": "BilinearUp",
    "deepem.models.emvision.utils": "sum3 mul3 div3 crop3d crop3d_center pad3d_center pad_size",
    "deepem.models.layers": "Conv Scale Resample Crop OutputBlock",
    "deepem.models.cnnectome_unet": (
        "create_model CNNectomeUNet CNNectomeUNetConfig CNNectomeUNetModule ConvPass Downsample Upsample "
        "AttentionBlockModule"
    ),
    "deepem.models.cnnectome": "dacapo_keys CNNectomeUNet CNNectomeUNetModule SuperResolution ShapeError",
    "deepem.loss": "BCELoss MSELoss AffinityLoss",
    "deepem.data.provider": "DataProvider Dataset DataSuperset",
    "deepem.data.emio": "imread imsave",
    "deepem.test.mask": "PatchMask AffinityMask make_mask",
    "deepem.test.forward": "predict main",
    "deepem.train.run": "main",
}
SIGNATURES = {
    "deepem.test.forward.predict": (
        "model image patch_size output_size overlap=(0.5, 0.5, 0.5) stride blend='bump' bump='zung' edges mask_edges "
        "temperature test_aug variance=False device batch_size=1 amp=False progress=False"
    ),
    "deepem.test.mask.make_mask": "patch_size overlap edge bump='zung'",
    "deepem.test.mask.PatchMask": "patch_size overlap",
    "deepem.test.mask.AffinityMask": "patch_size overlap edges bump",
    "deepem.loss.BCELoss": "size_average=True margin0=0 margin1=0 inverse=True",
    "deepem.loss.MSELoss": "size_average=True margin0=0 margin1=0 logits=True",
    "deepem.loss.AffinityLoss": "edges criterion size_average=False class_balancing=False",
    "deepem.models.layers.Conv": "in_channels out_channels kernel_size=3 stride=1 bias=False",
    "deepem.models.layers.Scale": "init_value=1.0",
    "deepem.models.layers.Crop": "cropsz",
    "deepem.models.emvision.utils.crop3d_center": "x ref",
    "deepem.models.emvision.utils.pad3d_center": "x ref",
    "deepem.data.transform.Blend": "augments props",
    "deepem.data.transform.Flip": "axis prob=0.5",
    "deepem.data.transform.Section": "perturb maxsec=0 prob skip=0 double=False individual=True",
    "deepem.data.transform.Misalign": "disp margin=0",
    "deepem.data.transform.SlipMisalign": "disp margin=1 interp=False",
    "deepem.data.transform.MisalignPlusMissing": "disp margin=1 value=0 random=False",
    "deepem.data.transform.MisalignTrackMissing": "track disp margin=1 value=0 random=False",
    "deepem.data.transform.LostSection": "nsec skip=0",
    "deepem.data.transform.LostPlusMissing": "skip=0 value=0 random=False",
    "deepem.data.transform.Track": "width=120 margin=20 sigma=(15, 10, 3) thresh=0 skip=0",
    "deepem.data.transform.Grayscale3D": "contrast_factor=0.3 brightness_factor=0.3 skip=0.3",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_can_be_imported(module: str) -> None:
    found = importlib.import_module(module)
    for name in NAMES[module].split():
        assert callable(getattr(found, name)), name


@pytest.mark.parametrize("path", SIGNATURES)
def test_arguments_keep_their_names_order_and_defaults(path: str) -> None:
    module, _, name = path.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    expected = [part.split("=", 1) for part in _split(SIGNATURES[path])]
    positions = [list(parameters).index(key) for key, *_ in expected]
    assert positions == sorted(positions)
    for key, *default in expected:
        if default:
            assert repr(parameters[key].default) == default[0] or str(parameters[key].default) == default[0], key


def _split(text: str) -> list[str]:
    """Words apart at spaces that are not inside brackets."""
    words, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == " " and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return words


@pytest.mark.parametrize("name", ["BCELoss", "MSELoss"])
def test_criteria_ignore_further_keywords(name: str) -> None:
    criterion = getattr(importlib.import_module("deepem.loss"), name)
    rng = torch.Generator().manual_seed(0)
    logits, target = (torch.rand(1, 2, 3, 4, 5, generator=rng) for _ in range(2))
    plain = criterion()(logits, target, torch.ones_like(target))
    assert criterion(something=1, edges=None)(logits, target, torch.ones_like(target)) == plain


@pytest.mark.parametrize("name", ["FillBox", "BlurBox", "NoiseBox"])
def test_boxes_share_their_arguments(name: str) -> None:
    box = getattr(importlib.import_module("deepem.data.transform"), name)
    given = {"dims": (4, 9), "aniso": 10, "density": 0.5, "margin": (1, 2, 3), "individual": False, "skip": 0.25}
    made = box(**given)
    assert {key: getattr(made, key) for key in given} == given
