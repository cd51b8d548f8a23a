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
from backslash.torch.parameters import Parameter
from backslash.torch.ranks import is_first, of_first, whole
from backslash.torch.sharded import save_sharded


def save(
    path: str | os.PathLike[str],
    parameters: list[Parameter],
    others: Mapping[str, torch.Tensor],
    process_group: dist.ProcessGroup | None,
    options: dict[str, Any],
) -> SizeSplit:
    """The first rank writes whole tensors, one by one unless their size is searched for, and all ranks return or raise what it
    does.

    Raises:
        ConfigurationError: a name is there twice.
    """
    twice = [parameter.name for parameter in parameters if parameter.name in others]
    if twice:
        raise ConfigurationError(f"`{twice[0]}` is among the tensors and a regularised parameter; one would be right")
    tensors = {**others, **{parameter.name: parameter.tensor for parameter in parameters}}
    if options.get("budget") is None and options.get("bits_per_weight") is None:
        sizeless = {name: value for name, value in options.items() if name not in ("budget", "bits_per_weight")}
        return save_sharded(tensors, path, **sizeless, process_group=process_group)
    gathered = {name: whole(tensor) for name, tensor in tensors.items()}
    split, failure = None, None
    if is_first(process_group):
        try:
            split = save_file(gathered, path, **options)
        except Exception as error:  # Other ranks wait for it.
            failure = error
    return of_first(split, failure, process_group)
