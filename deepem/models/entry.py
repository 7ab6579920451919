"""Build the entry functions of model modules.

A model module needs `create_model` and, if not every patch size fits, `output_size`. This module builds `create_model`

- from a function `core(width, *, ...)` that builds a network of feature maps (`model_of`). The keyword-only parameters
  of `core` become flags in addition to the common ones;
- or from a function that takes its flags in groups, each a frozen dataclass (`ungrouped`). The fields become flags.

Docstring lines of parameters and fields become the help texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

from deepem.models.emvision.rsu import WIDTH, u_shape
from deepem.models.layers import Core, Model, Spec
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

Net = TypeVar("Net")

EVERY = {"group": 0, "act": "ReLU"}
"""Arguments that public scripts pass to every model; models without a choice accept only this value."""


def widths(depth: int, width: Sequence[int] | None, default: Sequence[int] = WIDTH) -> tuple[int, ...]:
    """Channels per level: `width` if given, else the first `depth` of the default numbers."""
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
    """Return `input_size` if a padded network with these flags can pool it; else the error names the nearest sizes."""
    return u_shape(len(widths(depth, width)) - 1, zfactor, stem=stem).output_size(input_size)


def model_of(
    core: Callable[..., Core],
    *,
    model: type[Model] = Model,
    supervised: bool = True,
    default: Sequence[int] = WIDTH,
    levels: int = 4,
) -> Callable[..., Model]:
    """Build the entry function of a model with this core.

    Args:
        core: Function of the channels per level, with its flags as keywords.
        model: Class that wraps the core.
        supervised: Whether heads on coarser levels are possible.
        default: Channels of the levels, of which `depth` takes the first.
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
        """Build the network with its input convolution and heads.

        Args:
            in_spec: The input.
            out_spec: The heads.
            cropsz: Fraction of the patch that the output keeps.
            depth: Number of levels with the model's own numbers of channels, such as 16 32 64 128.
            width: Channels per level; overrides depth.
            deep_supervision: Loss weight of auxiliary heads on coarser levels, finest first.
            flags: Flags of the core.
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
    _declare(create_model, inspect.getdoc(create_model) or "", parameters, [_after(core, "Args:\n")])
    return create_model


def ungrouped(create: Callable[..., Net]) -> Callable[..., Net]:
    """Build an entry function from one whose keyword parameters include frozen dataclasses, the groups of its flags.

    Args:
        create: Parameters that are no group stay as they are. The fields of a group become parameters, with the help
            texts of the class's docstring section Attributes.
    """
    given = inspect.signature(create, eval_str=True).parameters
    groups: dict[str, Any] = {name: p.annotation for name, p in given.items() if is_dataclass(p.annotation)}
    owner = {field.name: name for name, kind in groups.items() for field in fields(kind)}

    def create_model(**flags: Any) -> Net:
        parts: dict[str, dict[str, Any]] = {name: {} for name in groups}
        others: dict[str, Any] = {}
        for name, value in flags.items():
            (parts[owner[name]] if name in owner else others)[name] = value
        return create(**others, **{name: kind(**parts[name]) for name, kind in groups.items()})

    parameters = [p for name, p in given.items() if name not in groups]
    for kind in groups.values():
        hints = get_type_hints(kind)
        for field in fields(kind):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            annotation = hints[field.name]
            new = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            parameters.append(new)
    create_model.__module__ = create.__module__
    lines = (inspect.getdoc(create) or "").split("\n")
    doc = "\n".join(line for line in lines if line.partition(":")[0].strip() not in groups)
    _declare(create_model, doc, parameters, [_after(kind, "Attributes:\n") for kind in groups.values()])
    return create_model


def _declare(entry: Any, doc: str, parameters: Sequence[inspect.Parameter], helps: Sequence[str]) -> None:
    """Set an entry function's parameters and docstring, with more lines in the docstring's section Args."""
    entry.__signature__ = inspect.Signature(list(parameters))
    entry.__annotations__ = {p.name: p.annotation for p in parameters}
    lines = "".join(f"{part.rstrip()}\n" for part in helps)
    entry.__doc__ = doc.replace("Args:\n", f"Args:\n{lines}")


def _after(described: Any, title: str) -> str:
    """Return the rest of a docstring after a section title."""
    return (inspect.getdoc(described) or "").partition(title)[2]


def scaled(create_model: Callable[..., Model], factor: Vec3) -> Callable[..., Model]:
    """Build the entry function of another model, with the same flags, that works at a lower resolution."""

    @wraps(create_model)
    def create(**flags: Any) -> Model:
        return create_model(**flags).scaled(factor)

    return create
