"""The residual symmetric U-Net (Lee et al. 2017, arXiv:1706.00120), with the options of all its variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from deepem.models.emvision.blocks import Steps, Style, Up, UpLevel, block, norm_act
from deepem.models.emvision.recompute import recomputed
from deepem.models.emvision.sizes import UShape
from deepem.models.emvision.utils import Triple, triple
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

WIDTH = (16, 32, 64, 128, 256, 512)


def u_shape(
    poolings: int,
    zfactor: Sequence[int] | None = None,
    factors: Sequence[Triple] | None = None,
    lost: Triple = 0,
    stem: Vec3 = (1, 1, 1),
) -> UShape:
    """Sizes of a network with this many poolings.

    Args:
        poolings: Number of poolings, one less than levels.
        zfactor: z pooling factor per level, finest first; y and x are pooled by 2. All 1 by default.
        factors: Alternative to zfactor: the (z, y, x) pooling factor per level.
        lost: Voxels that each block removes from each axis.
        stem: Pooling before the whole network.
    """
    if factors is None:
        factors = [(z, 2, 2) for z in ([1] * poolings if zfactor is None else zfactor)]
    if len(factors) != poolings or any(f < 1 for factor in factors for f in triple(factor)):
        got = ",".join(map(str, factors if zfactor is None else zfactor)) or "none"
        raise InputError("zfactor", got, f"{poolings} whole numbers, one per pooling")
    down, up = ((triple(lost),) * n if lost else () for n in (poolings + 1, poolings))
    return UShape(tuple(map(triple, factors)), down, up, stem)


class RSUNet(nn.Module):
    """Residual symmetric U-Net; input and output feature maps have width[0] channels.

    Args:
        width: Channels per level, finest first.
        zfactor: z pooling factor per level; y and x are always pooled by 2. All 1 by default.
        factors: Alternative to zfactor: the (z, y, x) pooling factor per level.
        kernels: Kernel size of each level's convolutions; 3x3x3 by default.
        norm: batch, group (of `group` channels each), instance or None.
        group: Channels per group.
        act: ReLU, LeakyReLU(negative_slope), PReLU(init) or ELU, with its argument as a further keyword.
        up: 'bilinear' as in the public code; 'exact' with its weights along z corrected; 'nearest', 'trilinear'.
        final: End with norm and activation.
        valid: The first and last convolution of each block have no padding, which removes 4 voxels per block and axis.
        turns: Batch norms per layer, one per pass of an unrolled network.
        layout: Name of the child modules with norm and activation; "" if these are next to the convolution.
        names: Names of pooling and block in each `dconvs`; by default the block's layers are direct children.
        squeeze_excitation: Weigh the channels after each block.
        attention_gates: Weigh the skips.
        checkpointing: Store only the maps between blocks for the backward pass, and recompute the others.
        act_options: Arguments of the activation.

    Attributes:
        shape: Which patch sizes fit, and the size of the output.
        supervisable: Whether coarser levels cover the same patch, so that heads can be put on them.
    """

    def __init__(
        self,
        width: Sequence[int] = WIDTH,
        *,
        zfactor: Sequence[int] | None = None,
        factors: Sequence[Triple] | None = None,
        kernels: Sequence[Triple] | None = None,
        norm: str | None = "batch",
        group: int = 16,
        act: str = "ReLU",
        up: str = "bilinear",
        final: bool = True,
        valid: bool = False,
        turns: int = 0,
        layout: str = "norm_relu",
        names: Sequence[str] = ("0", "1"),
        squeeze_excitation: bool = False,
        attention_gates: bool = False,
        checkpointing: bool = False,
        **act_options: float,
    ) -> None:
        super().__init__()
        self.width = tuple(width)
        self.checkpointing = checkpointing
        self.supervisable = not (valid or turns)
        poolings = len(self.width) - 1
        if poolings < 0 or min(self.width) < 1:
            raise InputError("width", " ".join(map(str, width)) or "nothing", "a number of channels for each level")
        self.shape = u_shape(poolings, zfactor, factors, 4 if valid else 0)
        kernels = [3] * (poolings + 1) if kernels is None else kernels
        style = Style(
            norm, group, act, act_options, layout,
            turns=turns, up=up, valid=valid, squeeze=squeeze_excitation, gates=attention_gates,
        )  # fmt: skip

        self.iconv = block(self.width[0], self.width[0], kernels[0], style)
        self.dconvs, self.uconvs = nn.ModuleList(), nn.ModuleList()
        for level, factor in enumerate(self.shape.factors):
            fine, coarse = self.width[level : level + 2]
            below = block(fine, coarse, kernels[level + 1], style)
            steps = {names[1]: below} if names else dict(below.named_children())
            self.dconvs.append(Steps({names[0] if names else "pool": nn.MaxPool3d(factor), **steps}))
            above = block(fine, fine, kernels[level], style)
            self.uconvs.insert(0, UpLevel(Up(coarse, fine, factor, style), above, flat=not names))
        self.final = norm_act(self.width[0], style) if final else Steps({})

    def forward(self, x: Tensor, turn: int = 0) -> Tensor:
        """(N, width[0], Z, Y, X) -> the same, or less at the border for a valid network.

        Raises:
            InputError: the size cannot be pooled evenly.
        """
        return self.maps(x, turn)[0]

    def maps(self, x: Tensor, turn: int = 0, coarsest: int = 0) -> list[Tensor]:
        """Return the output, then the maps of the way up at levels 1 to `coarsest`, finer ones first."""
        self.shape.output_size(x.shape[-3:], "network input")
        run = recomputed if self.checkpointing and self.training else _plain
        x = run(self.iconv, x, turn)
        skips = []
        for down in self.dconvs:
            skips.append(x)
            x = run(down, x, turn)
        maps: list[Tensor] = []
        for up in self.uconvs:
            if 0 < len(skips) <= coarsest:
                maps.insert(0, x)
            x = run(up, x, skips.pop(), turn)
        return [self.final(x, turn), *maps]


def _plain(module: nn.Module, *args: Any) -> Tensor:
    out: Tensor = module(*args)
    return out
