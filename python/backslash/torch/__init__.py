"""PyTorch: files into tensors, and the regulariser that trains for a small file."""

from __future__ import annotations

import os
from typing import Any

import torch

from backslash import _native
from backslash.files import Progress, safe_open, save_file
from backslash.torch.bits import Forecast
from backslash.torch.groups import Group
from backslash.torch.regularizer import RateRegularizer

from backslash.torch.sharded import load_sharded, save_sharded

__all__ = ["Forecast", "Group", "RateRegularizer", "load_file", "load_sharded", "save_file", "save_sharded"]


def load_file(
    path: str | os.PathLike[str],
    device: torch.device | str | int = "cpu",
    *,
    max_memory: int = _native.DEFAULT_MAX_MEMORY,
    progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """Reads all tensors of a file.

    Quantised tensors come as float32, all others in the type that the file has for them: bfloat16 for small and
    one-dimensional floats. `Module.load_state_dict` converts both to the type of the module.

    Args:
        path: The file.
        device: Where the tensors go.
        max_memory: Most bytes that the tensors may take; checked before they are decoded.
        progress: Called with (weights done, weights in all, name) after each tensor, from any thread.

    Raises:
        CorruptFileError, FutureVersionError: the file cannot be read.
        MemoryLimitError: the tensors need more than `max_memory`.
        OSError: the operating system refused.
    """
    with safe_open(path, "torch", device, max_memory=max_memory) as file:
        return file.get_tensors(progress=progress)
