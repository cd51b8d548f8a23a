"""Groups of parameters, each with a weight of its own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from backslash.errors import ConfigurationError
from backslash.torch.parameters import Parameter, checked, named


@dataclass
class Group:
    """Parameters that are regularised with the same weight."""

    weight: float
    """The price of what is regularised, in the units of the method. It can be changed between steps, as by a schedule."""
    parameters: list[Parameter]


def groups_of(parameters: Iterable[Any], weight: float | None, ranks: int) -> list[Group]:
    """Groups of parameters, pairs of name and parameter, or groups as dictionaries.

    Raises:
        ConfigurationError: a weight or a parameter does not fit, or is in two groups.
    """
    entries = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    are_groups = [isinstance(entry, dict) for entry in entries]
    if not any(are_groups):
        entries = [{"params": entries}]
    elif not all(are_groups):
        raise ConfigurationError("parameters are groups in part; either all or none would be right")
    groups: list[Group] = []
    owner: dict[int, int] = {}
    for index, entry in enumerate(entries):
        strength = entry.get("weight", weight)
        if strength is None or not (math.isfinite(strength) and strength >= 0):
            raise ConfigurationError(
                f"the weight of group {index} is {strength}; it must be a number of at least 0"
            )
        group = Group(float(strength), [])
        for name, tensor in named(entry["params"], f"{index}." if len(entries) > 1 else ""):
            if owner.get(id(tensor), index) != index:
                raise ConfigurationError(
                    f"parameter `{name}` is in groups {owner[id(tensor)]} and {index}; one would be right"
                )
            if id(tensor) not in owner:
                owner[id(tensor)] = index
                group.parameters.append(checked(name, tensor, ranks))
        groups.append(group)
    if not any(group.parameters for group in groups):
        raise ConfigurationError("there are no parameters to regularise")
    return groups


def common_device(parameters: list[Parameter]) -> torch.device:
    """The device of all parameters.

    Raises:
        ConfigurationError: there is more than one.
    """
    first = parameters[0]
    for parameter in parameters:
        if parameter.tensor.device != first.tensor.device:
            raise ConfigurationError(
                f"parameter `{parameter.name}` is on {parameter.tensor.device}, `{first.name}` on "
                f"{first.tensor.device}; one device for all of a rank would be right"
            )
    return first.tensor.device


def warn_of_short_types(parameters: list[Parameter]) -> None:
    """Warns of types in which small steps are lost."""
    short = [p for p in parameters if p.tensor.dtype.itemsize < 4]
    if short:
        warnings.warn(
            f"parameter `{short[0].name}` is of type {short[0].tensor.dtype}: changes of less than half its last bit are lost. "
            "Keep parameters in float32 and compute in short types by autocast or MixedPrecisionPolicy",
            stacklevel=4,
        )
