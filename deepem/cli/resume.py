"""Decides what a resumed run may change, by the resume rule of each flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from deepem.cli.flags import ASK, FREE, ROUNDING, SAME, UNSET, Flag, declared, flags_of, groups_of
from deepem.utils.errors import InputError

OptionsT = TypeVar("OptionsT")


def adopted(
    options: OptionsT, before: Mapping[str, Any], typed: frozenset[str], modules: Sequence[ModuleType] = ()
) -> tuple[OptionsT, list[str]]:
    """Adopt an older run's values for flags that are newer than the run or whose default has changed.

    Args:
        options: The options of this command line.
        before: The options in the checkpoint, by flag.
        typed: Flags that the user typed; they keep their values.
        modules: The plug-ins. Their ``formerly`` gives the values of plug-in flags that the run did not have.

    Returns:
        The options, and one line for each adopted value.
    """
    lines, groups = [], {}
    for name, group in groups_of(type(options)).items():
        now = getattr(options, name)
        taken = {}
        for flag in flags_of(group):
            older = flag.older
            if older is UNSET or flag.name in typed or getattr(now, flag.name) == older:
                continue
            if before.get(flag.name, older) == older:
                taken[flag.name] = older
                lines.append(f"--{flag.name} {older}: as this run was started, before the default became another")
        groups[name] = dataclasses.replace(now, **taken) if taken else now
    plug_ins = dict(options.plug_in_flags)  # type: ignore[attr-defined]
    for module in modules:
        for name, older in getattr(module, "formerly", {}).items():
            if name in plug_ins and name not in before and name not in typed and plug_ins[name] != older:
                plug_ins[name] = older
                lines.append(f"--{name} {older}: as this run was started, before there was such a flag")
    return dataclasses.replace(options, plug_in_flags=plug_ins, **groups), lines  # type: ignore[type-var]


def require_same(
    where: object, options: type[Any], before: Mapping[str, Any], now: Mapping[str, Any], change: Sequence[str] = ()
) -> list[str]:
    """Refuse to resume if options differ that must stay as the run was started.

    Args:
        where: The run, to name in errors.
        options: The class that declares the flags. Flags of tasks and plug-ins must not change.
        before: The options in the checkpoint, by flag.
        now: The options of this command line, with derived values filled in.
        change: Flags that the user allows to differ (--change).

    Returns:
        One line for each change that the user should know about.

    Raises:
        InputError: options that affect the samples or the training differ. The error lists all of them.
    """
    rules = {flag.name: flag for flag in declared(options)}
    _require_known(change, rules)
    differ, told = [], []
    for name in sorted(set(before) & set(now)):
        if before[name] == now[name]:
            continue
        rule = rules[name].resume if name in rules else SAME
        line = f"--{name} was {before[name]}, is {now[name]}"
        if rule == ROUNDING:
            told.append(f"{line}: rounding differs")
        elif name == "data_dir" or (rule == ASK and name in change):
            told.append(line)
        elif rule != FREE:
            differ.append(line)
    if differ:
        hints = _hints([line.split()[0].lstrip("-") for line in differ], rules, before)
        wants = f"the same{hints}, or another --exp_name"
        raise InputError(where, f"other options than the run there ({'; '.join(differ)})", wants)
    return told


def _require_known(change: Sequence[str], rules: Mapping[str, Flag]) -> None:
    allowed = [name for name, flag in rules.items() if flag.resume == ASK]
    if unknown := [name for name in change if name.lstrip("-") not in allowed]:
        raise InputError("--change", unknown[0], f"one of {', '.join(allowed)}")


def _hints(names: Sequence[str], rules: Mapping[str, Flag], before: Mapping[str, Any]) -> str:
    hints = []
    if "lr_until" in names:
        hints.append(f"--lr_until {before['lr_until']} keeps the course of the rate")
    asks = [name for name in names if name in rules and rules[name].resume == ASK]
    if asks and len(asks) == len(names):
        hints.append(f"--change {' '.join(asks)} if that is meant")
    return f" ({'; '.join(hints)})" if hints else ""
