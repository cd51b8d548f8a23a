"""How large a file would be, without writing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backslash import _native, _tensors
from backslash.files import Progress, checked_factor, checked_options
from backslash.inspection import SizeSplit


def exact_size(
    tensors: Mapping[str, Any],
    *,
    steps: float | Mapping[str, float] | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    effort: str = "smallest",
    progress: Progress | None = None,
) -> SizeSplit:
    """The bytes of the file that `save_file` would write with the same arguments, to the byte; it takes as long.

    Args:
        tensors, steps, metadata, effort, progress: As in `save_file`.

    Raises:
        InvalidTensorError, ConfigurationError: as `save_file`.
    """
    given = [_tensors.describe(name, tensor) for name, tensor in tensors.items()]
    options = checked_options("", metadata, effort, progress=progress)
    if isinstance(steps, Mapping):
        return SizeSplit(**_native.size_by_steps(given, dict(steps), options))
    return SizeSplit(**_native.size_by_factor(given, checked_factor(steps), options))


def estimated_size(
    tensors: Mapping[str, Any],
    *,
    steps: float | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    progress: Progress | None = None,
) -> int:
    """About the bytes of the file that `save_file` would write, by the fast coder and a million of the weights: within a percent
    or so, in a fraction of the time.

    Args:
        tensors, metadata, progress: As in `save_file`.
        steps: The step of each matrix over its root mean square, as in `save_file`.

    Raises:
        InvalidTensorError, ConfigurationError: as `save_file`.
    """
    given = [_tensors.describe(name, tensor) for name, tensor in tensors.items()]
    options = checked_options("", metadata, progress=progress)
    return _native.estimate_by_factor(given, checked_factor(steps), options)
