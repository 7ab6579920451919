"""The examples of the documented interface, as they stand: run, or refused with what would run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch

from deepem.models import cnnectome_unet
from deepem.utils.errors import InputError

DOCUMENT = Path(__file__).resolve().parents[4] / "shared/documents/cnnectome_unet.txt"
CONFIG = cnnectome_unet.CNNectomeUNetConfig(
    input_shape=(1, 1, 128, 128, 128),
    fmaps_out=1,
    fmaps_in=1,
    num_fmaps=2,
    fmap_inc_factor=2,
    downsample_factors=[(2, 2, 2), (2, 2, 2)],
    eval_shape_increase=(1, 1, 128, 128, 128),
)
REFUSED = {
    "unet.rec_forward(2, x)": "got 1 channels, wants 24; level 3 takes 1",
    "unet(x)": "z = 100, 108 or 116 instead of 64",
    "upsample(g_out, f_left)": "wants a skip of (128, 128, 128) or more",
}
SHOWN = {
    "unet.eval_shape_increase": (1, 1, 128, 128, 128),
    "unet.scale((1, 1, 1))": (1, 1, 1),
    "unet.input_shape": (1, 1, 128, 128, 128),
    "unet.num_in_channels": 1,
    "unet.num_out_channels": 1,
}


def groups() -> list[list[str]]:
    """The sources of the examples, one list per rubric."""
    if not DOCUMENT.is_file():
        return []
    parser = doctest.DocTestParser()
    rubrics = DOCUMENT.read_text().split(".. rubric:: Examples")[1:]
    return [[e.source.strip() for e in parser.get_examples(text) if e.source.strip()] for text in rubrics]


@pytest.mark.skipif(not groups(), reason="the documents are not beside the checkout")
def test_examples_run_or_are_refused_with_the_nearest_that_do():
    names = {name: getattr(cnnectome_unet, name) for name in cnnectome_unet.__all__}
    refused = []
    with torch.no_grad():
        for sources in groups():
            within = {**names, "torch": torch, "architecture_config": CONFIG, "unet": None}
            if not any(source.startswith("unet =") for source in sources):
                within["unet"] = cnnectome_unet.CNNectomeUNet(CONFIG)
            for source in sources:
                module = isinstance(within["unet"], cnnectome_unet.CNNectomeUNetModule)
                if source in REFUSED and (module or source.startswith("upsample")):
                    with pytest.raises(InputError) as error:
                        eval(source, within)
                    assert REFUSED[source] in str(error.value)
                    assert isinstance(error.value, RuntimeError)
                    refused.append(source)
                elif source in SHOWN:
                    assert eval(source, within) == SHOWN[source]
                else:
                    exec(source, within)
    assert sorted(refused) == sorted(REFUSED)


def test_sizes_that_errors_name_do_run():
    unet = cnnectome_unet.CNNectomeUNetModule(1, 1, 1, [(2, 2, 2)] * 3, batch_norm=False)
    for size in (100, 108, 116):
        assert unet.sizes.output_size((size,) * 3) == (size - 92,) * 3


def test_a_module_shows_its_settings_as_documented():
    shown = repr(cnnectome_unet.CNNectomeUNetModule(1, 24, 2, [(2, 2, 2)] * 3, num_fmaps_out=1, padding="valid"))
    assert shown.startswith("CNNectomeUNetModule(\n  in_channels=1,\n  num_fmaps=24,\n  num_fmaps_out=1,\n")
    assert "downsample_factors=[(2, 2, 2), (2, 2, 2), (2, 2, 2)]," in shown
