"""Weights of a training to a file, from all ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from backslash.errors import ConfigurationError
from backslash.files import save_file
from backslash.inspection import SizeSplit
from backslash.torch.parameters import DTensor, Parameter


def save(
    path: str | os.PathLike[str],
    parameters: list[Parameter],
    others: Mapping[str, torch.Tensor],
    process_group: dist.ProcessGroup | None,
    options: dict[str, Any],
) -> SizeSplit:
    """The first rank writes whole tensors, and all ranks return or raise what it does.

    Raises:
        ConfigurationError: a name is there twice.
    """
    twice = [parameter.name for parameter in parameters if parameter.name in others]
    if twice:
        raise ConfigurationError(f"`{twice[0]}` is among the tensors and a regularised parameter; one would be right")
    whole = {name: _whole(tensor) for name, tensor in others.items()}
    whole.update({parameter.name: _whole(parameter.tensor) for parameter in parameters})
    if not (dist.is_available() and dist.is_initialized()):
        return save_file(whole, path, **options)
    outcome: list[Any] = [None]
    if dist.get_rank(process_group) == 0:
        try:
            outcome = [save_file(whole, path, **options)]
        except Exception as error:  # Other ranks wait for it.
            outcome = [error]
    dist.broadcast_object_list(outcome, group=process_group, group_src=0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
