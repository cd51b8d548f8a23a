"""Where the bytes of a file go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from backslash import _native


@dataclass(frozen=True)
class SizeSplit:
    """Bytes of a file, or of one tensor in it, by purpose."""

    payload: int
    """Entropy-coded weight codes."""
    tables: int
    """Probability tables and coder parameters."""
    scales: int
    """Row and column scales."""
    corrections: int
    """Corrections added to quantised weights."""
    uncoded: int
    """Tensors stored verbatim, and metadata."""
    directory: int
    """Header, directory, checksums, padding; counted for the whole file only."""

    @property
    def total(self) -> int:
        """Sum of all parts: of a file, its exact size in bytes."""
        return (
            self.payload
            + self.tables
            + self.scales
            + self.corrections
            + self.uncoded
            + self.directory
        )


@dataclass(frozen=True)
class TensorReport:
    """One tensor of a file."""

    name: str
    shape: tuple[int, ...]
    coder: str
    """Coder of the codes, or of the bytes of a verbatim tensor."""
    step: float | None
    """Quantiser step; None for a verbatim tensor."""
    bits_per_weight: float
    """All bytes of the tensor, in bits, per weight."""
    split: SizeSplit


@dataclass(frozen=True)
class Inspection:
    """What a file holds."""

    split: SizeSplit
    """Bytes of the whole file; `split.total` is its size."""
    tensors: tuple[TensorReport, ...]
    """In file order."""
    metadata: dict[str, tuple[int, int]]
    """Stored and decoded bytes of each metadata value."""


def inspect(
    path: str | os.PathLike[str], *, max_memory: int = _native.DEFAULT_MAX_MEMORY
) -> Inspection:
    """Says where the bytes of a file go; its codes are not decoded.

    Raises:
        CorruptFileError, FutureVersionError: the file cannot be read.
        MemoryLimitError: the file is larger than `max_memory` bytes.
        OSError: the operating system refused.
    """
    split, tensors, metadata = _native.inspect(os.fspath(path), max_memory)
    return Inspection(
        split=SizeSplit(**split),
        tensors=tuple(_report(tensor) for tensor in tensors),
        metadata={key: (stored, decoded) for key, stored, decoded in metadata},
    )


def _report(tensor: dict[str, Any]) -> TensorReport:
    shape, split = tuple(tensor["shape"]), SizeSplit(**tensor["split"])
    return TensorReport(**{**tensor, "shape": shape, "split": split})
