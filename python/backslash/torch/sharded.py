"""Sharded parameters to one file and back, with one whole tensor in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist

from backslash import _native, _tensors
from backslash.errors import InvalidTensorError
from backslash.files import Progress, checked_factor, checked_options, safe_open
from backslash.inspection import SizeSplit
from backslash.torch.ranks import fill, is_first, of_first, whole


def save_sharded(
    tensors: Mapping[str, torch.Tensor],
    path: str | os.PathLike[str],
    *,
    steps: float | Mapping[str, float] | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    effort: str = "smallest",
    overwrite: bool = False,
    progress: Progress | None = None,
    process_group: dist.ProcessGroup | None = None,
) -> SizeSplit:
    """Writes the file of `save_file` from all ranks: each tensor is gathered, coded on the first rank, and let go.

    All ranks call it with the same names, such as those of `model.state_dict()`, and all return or raise what the first does.

    Args:
        tensors: By name: sharded (`DTensor`), or the same on all ranks.
        path: The file, written by the first rank.
        steps, metadata, effort, overwrite: As in `save_file`.
        progress: Called on the first rank with (tensors done, tensors in all, name).
        process_group: The ranks; all by default.

    Raises:
        InvalidTensorError, ConfigurationError, FileExistsError, OSError: as `save_file`.
    """
    failure: Exception | None = None
    writer = None
    if is_first(process_group):
        try:
            writer = _Writer(tensors, steps, checked_options(path, metadata, effort, overwrite, progress))
        except Exception as error:  # Other ranks wait for it.
            failure = error
    of_first(None, failure, process_group)
    for name in sorted(tensors, key=str.encode):
        gathered = whole(tensors[name])
        # After a failure the first rank goes on gathering with the others.
        if writer is not None and failure is None:
            try:
                writer.add(name, gathered)
            except Exception as error:
                failure = error
    split = None
    if writer is not None:
        try:
            split = writer.finish() if failure is None else writer.abandon()
        except Exception as error:
            failure = error
    return of_first(split, failure, process_group)


def load_sharded(
    tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    path: str | os.PathLike[str],
    *,
    max_memory: int = _native.DEFAULT_MAX_MEMORY,
) -> None:
    """Fills tensors from a file: each rank decodes one whole tensor at a time and keeps its shard.

    Args:
        tensors: By name, sharded (`DTensor`) or not: `model.state_dict()` or `model.named_parameters()`. Their types and
            devices stay what they are. Tensors of the file that are not among them are left alone.
        path: The file, which every rank can read.
        max_memory: Most bytes that one tensor may take.

    Raises:
        KeyError: the file lacks one of the names; no tensor is changed then, and neither is one where shapes differ.
        InvalidTensorError: a tensor has another shape in the file.
        CorruptFileError, FutureVersionError, MemoryLimitError, OSError: as `load_file`.
    """
    named = dict(tensors)
    with safe_open(path, "torch", max_memory=max_memory) as file:
        for name, tensor in named.items():
            found = file.get_shape(name)
            if found != tuple(tensor.shape):
                raise InvalidTensorError(
                    f"{os.fspath(path)}: `{name}` has the shape {list(found)}, and {list(tensor.shape)} is to be filled"
                )
        for name, tensor in named.items():
            fill(tensor, file.get_tensor(name))


class _Writer:
    """The unfinished file of the first rank."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], steps: float | Mapping[str, float] | None, options: tuple) -> None:
        self._steps = dict(steps) if isinstance(steps, Mapping) else None
        self._factor = checked_factor(None if self._steps is not None else steps)
        if self._steps is not None and (unknown := self._steps.keys() - tensors.keys()):
            raise InvalidTensorError(f"there is a step for `{min(unknown)}`, which is not among the tensors that are coded")
        self._progress, self._done, self._total = options.progress, 0, len(tensors)
        self._native = _native.Writer(options)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, name)
        described = _tensors.describe(name, tensor)
        if self._steps is None:
            self._native.by_factor(described, self._factor)
        else:
            self._native.by_step(described, self._steps.get(name))
        self._done += 1

    def finish(self) -> SizeSplit:
        return SizeSplit(**self._native.finish())

    def abandon(self) -> None:
        self._native.abandon()
