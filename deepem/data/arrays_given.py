"""Check what samplers and augmentations return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deepem.data.transform.base import Apply, Spec
from deepem.utils.errors import InputError

AUGMENTATION, SAMPLER = "augment", "sampler"


def told(value: object) -> str:
    """Describe a value in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return "None" if value is None else f"a {type(value).__name__}"


def require_sample(sample: Any, where: str) -> None:
    """Check that a sample is a dict of numeric arrays.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(sample, Mapping) or not sample:
        raise InputError(where, told(sample), "a dict of arrays (C, Z, Y, X) by key")
    for key, value in sample.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise InputError(f"{where} {key}", told(value), "an array of numbers (C, Z, Y, X)")


def require_request(made: Any, spec: Spec) -> tuple[Spec, Apply]:
    """Check and return the result of an augmentation's `prepare`: a request for the same keys, and a function.

    Raises:
        InputError: It is something else.
    """
    wants = "(spec, apply) from prepare: the request to read, and the function that makes the sample from it"
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], Spec) or not callable(made[1]):
        raise InputError(AUGMENTATION, told(made), wants)
    if lacking := [key for key in spec.size if key not in made[0].size]:
        raise InputError(AUGMENTATION, f"a request without {lacking[0]}", wants)
    return made


def applied(apply: Callable[[Any], Any], sample: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """Apply an augmentation and check that its sample has every requested array in the requested size.

    Raises:
        InputError: It does not.
    """
    made = apply(dict(sample))
    require_sample(made, AUGMENTATION)
    for key, size in spec.size.items():
        if key not in made:
            raise InputError(AUGMENTATION, told(made), f"{key} in it, as in what it was given")
        if made[key].ndim != 4 or any(n < s for n, s in zip(made[key].shape[-3:], size, strict=True)):
            raise InputError(f"{AUGMENTATION} {key}", told(made[key]), f"(C, {', '.join(map(str, size))})")
    return dict(made)
