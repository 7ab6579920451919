"""Entry functions of model modules, made from what tells one network from another.

A model module needs `create_model` and, if not every patch fits, `output_size`. Here the first is made from a function
`core(width, *, ...)` that builds a network of feature maps: its keyword-only parameters become flags beside the common
ones, and the lines of its docstring become their help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from deepem.models.emvision.rsu import WIDTH, u_shape
from deepem.models.layers import Core, Model, Spec
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

EVERY = {"group": 0, "act": "ReLU"}
"""What public scripts hand to every model; those that have no choice of it take this value of it."""


def widths(depth: int, width: Sequence[int] | None, default: Sequence[int] = WIDTH) -> tuple[int, ...]:
    """Channels per level: `width` as given, else the first `depth` of the default ones."""
    if width:
        return tuple(width)
    if not 1 <= depth <= len(default):
        raise InputError("depth", depth, f"1 to {len(default)}, or the channels of each level as width")
    return tuple(default[:depth])


def same_size(
    input_size: Vec3,
    *,
    depth: int = 4,
    width: Sequence[int] | None = None,
    zfactor: Sequence[int] | None = None,
    stem: Vec3 = (1, 1, 1),
    **_: object,
) -> Vec3:
    """`input_size`, if a padded network of these flags can pool it, else an InputError with the nearest that work."""
    return u_shape(len(widths(depth, width)) - 1, zfactor, stem=stem).output_size(input_size)


def model_of(
    core: Callable[..., Core],
    *,
    model: type[Model] = Model,
    supervised: bool = True,
    default: Sequence[int] = WIDTH,
    levels: int = 4,
) -> Callable[..., Model]:
    """The entry function of a model with this core.

    Args:
        core: Takes the channels per level, and its flags by keyword.
        model: What is put around it.
        supervised: Heads on coarser levels are possible.
        default: Channels per level that `depth` counts.
        levels: Default of `depth`.
    """
    own = [p for p in inspect.signature(core, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    names = {p.name for p in own}

    def create_model(
        *,
        in_spec: Spec,
        out_spec: Spec,
        cropsz: tuple[float, float, float] | None = None,
        depth: int = levels,
        width: list[int] | None = None,
        deep_supervision: list[float] | None = None,
        **flags: Any,
    ) -> Model:
        """The network with its input convolution and heads.

        Args:
            in_spec: The input.
            out_spec: The heads.
            cropsz: Fraction of the patch that the output keeps.
            depth: Number of levels with the model's own numbers of channels, such as 16 32 64 128.
            width: Channels per level; takes the place of depth.
            deep_supervision: Loss weight of auxiliary heads on coarser levels, finest first.
            flags: Those of the core.
        """
        for name in flags.keys() - names:
            if name not in EVERY or flags.pop(name) != EVERY[name]:
                raise TypeError(f"{core.__module__}: create_model() has no parameter {name!r}, or no choice of it")
        made = core(widths(depth, width, default), **flags)
        return model(made, in_spec, out_spec, cropsz=cropsz, deep_supervision=deep_supervision)

    hidden = () if supervised else ("deep_supervision",)
    common = inspect.signature(create_model, eval_str=True).parameters.values()
    parameters = [p for p in common if p.kind is p.KEYWORD_ONLY and p.name not in hidden] + own
    create_model.__module__ = core.__module__
    create_model.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    create_model.__annotations__ = {p.name: p.annotation for p in parameters}
    helps = (inspect.getdoc(core) or "").partition("Args:\n")[2]
    create_model.__doc__ = (inspect.getdoc(create_model) or "").replace("Args:\n", f"Args:\n{helps}\n")
    return create_model


def scaled(create_model: Callable[..., Model], factor: Vec3) -> Callable[..., Model]:
    """The entry function of another model, with its flags, working at a lower resolution."""

    @wraps(create_model)
    def create(**flags: Any) -> Model:
        return create_model(**flags).scaled(factor)

    return create
