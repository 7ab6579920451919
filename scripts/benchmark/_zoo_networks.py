"""The networks of `zoo.py`, and what their trainings have in common."""

from __future__ import annotations

from dataclasses import dataclass

COMMON = (
    "--data fib25 --augment grayscale_warping --grayscale --warping --aff 1 --long 1 --edges 0,0,4 0,4,0 4,0,0 0,0,9 "
    "0,9,0 9,0,0 --size_average --lr 0.002 --lr_schedule cosine --eval_iter 8 --eval_intv 50 --avgs_intv 20 "
    "--warm_up 0 --imgs_intv 1000000 --chkpt_intv 1000000"
)
FOV = "--fov 16,96,96"
U = f"--width 16 32 64 {FOV}"
CNNECTOME = "--model cnnectome_unet --num_fmaps 12 --fmap_inc_factor 3 --zfactor 2 2 --xyfactor 2 2"
FPN = f"--model fpn --fpn_width 32 --dense_width 16 {FOV}"


@dataclass(frozen=True)
class Network:
    """A row of the table.

    Attributes:
        words: The flags of the network and its patch.
        small: Flags that make it tiny.
        seeds: How many seeds it trains with.
        about: What is special about it.
    """

    words: str
    small: str = "--width 4 8 --fov 8,32,32"
    seeds: int = 1
    about: str = ""


NETWORKS = {
    "rsunet": Network(f"--model rsunet {U}", seeds=3, about="the default, batch norm"),
    "rsunet_group": Network(f"--model rsunet {U} --group 8", "--width 8 16 --fov 8,32,32", about="group norm"),
    "rsunet_instance": Network(f"--model rsunet {U} --group 1", about="instance norm"),
    "rsunet_iso": Network(
        f"--model rsunet {U} --zfactor 2 2", "--width 4 8 --zfactor 2 --fov 8,32,32", about="pools z too"
    ),
    "rsunet_2d3d": Network(f"--model rsunet_2d3d {U} --depth2d 1", about="flat kernels in the finest level"),
    "dynamic_rsunet": Network(f"--model dynamic_rsunet {U} --unroll 3", about="three passes"),
    "updown": Network(f"--model updown {U}", about="rsunet at half the resolution in y and x"),
    "vrunet": Network(
        "--model vrunet --width 16 32 64 --fov 32,128,128", "--width 4 8 --fov 28,64,64", about="valid convolutions"
    ),
    "dtu2": Network(
        "--model dtu2 --width 12 36 108 --fov 31,212,212", "--width 4 8 --fov 12,104,104", about="valid, pools by 3"
    ),
    "cnnectome_valid": Network(
        f"{CNNECTOME} --padding valid --fov 56,128,128", "--num_fmaps 4 --zfactor 2 --xyfactor 2 --fov 28,44,44", 3,
        "valid convolutions, concatenated skips",
    ),
    "cnnectome_same": Network(
        f"{CNNECTOME} --padding same {FOV}", "--num_fmaps 4 --zfactor 2 --xyfactor 2 --fov 8,32,32", 3, "padded"
    ),
    "mednext": Network(
        f"--model mednext {U} --zfactor 2 2", "--width 4 8 --zfactor 2 --fov 8,32,32",
        about="ConvNeXt blocks, norm over the patch",
    ),
    "fpn_resnet18": Network(
        f"{FPN} --backbone resnet18 --resnet_width 16 --stem_stride 1,2,2 --pool_stride 1,2,2",
        "--resnet_width 4 --fov 8,64,64", about="feature pyramid on a ResNet",
    ),
    "fpn_vitdet": Network(
        f"{FPN} --backbone vitdet --patch_size 4,8,8 --image_size 16,96,96 --vit_width 96 --vit_depth 4 --vit_heads 4 "
        "--global_blocks 1 --pyramid_width 32", "--vit_width 16 --vit_depth 2 --image_size 8,32,32 --fov 8,32,32",
        about="plain vision transformer",
    ),
    "fpn_hiera_t": Network(
        f"{FPN} --backbone hiera_t --image_size 16,96,96 --patch_stride 2,4,4 --q_stride 1,2,2",
        "--image_size 8,32,32 --fov 8,32,32", about="hierarchical vision transformer, tiny",
    ),
}  # fmt: skip
"""The rows."""
