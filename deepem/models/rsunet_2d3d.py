"""`rsunet` with flat kernels in its finest levels, where voxels are most anisotropic."""

from __future__ import annotations

from deepem.models import emvision
from deepem.models.entry import model_of, same_size

output_size = same_size


def core(
    width: tuple[int, ...],
    *,
    group: int = 0,
    depth2d: int = 0,
    kernel2d: tuple[int, int, int] = (1, 3, 3),
    checkpointing: bool = False,
) -> emvision.RSUNet:
    """Build the network between input convolution and heads.

    Args:
        width: Channels per level.
        group: Channels per group of the group norm; 0 for batch norm.
        depth2d: Number of levels with flat kernels, starting at the finest.
        kernel2d: Size of the flat kernels, z,y,x.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    norm = {"norm": "group", "group": group} if group else {}
    return emvision.rsunet_2d3d(width, depth2d, kernel2d, checkpointing=checkpointing, **norm)


create_model = model_of(core)
