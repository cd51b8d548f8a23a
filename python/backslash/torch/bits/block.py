"""Where the part of a matrix that a rank holds stands in the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backslash.errors import ConfigurationError
from backslash.torch.parameters import DTensor, Parameter
from backslash.torch.ranks import local_shape_and_offset

# As `is_coded` of the crate `backslash-quant` has it.
_LEAST_EXTENT = 16
_LEAST_IN_MATRIX = 1024
_LEAST_CODED = 4096


def is_coded(shape: tuple[int, ...]) -> bool:
    """Whether a file holds codes of a tensor of this shape; one-dimensional and small ones are stored as bfloat16."""
    if len(shape) < 2:
        return False
    rows, count = shape[0], math.prod(shape)
    is_matrix = rows >= _LEAST_EXTENT and count // _LEAST_EXTENT >= rows
    return count >= (_LEAST_IN_MATRIX if is_matrix else _LEAST_CODED)


@dataclass(frozen=True)
class Block:
    """A tensor is a matrix of rows along its first dimension; this is the part of it with these rows and columns."""

    first_row: int
    rows: int
    all_rows: int
    first_column: int
    columns: int
    all_columns: int
    is_split: bool
    """Whether some rank holds a part only."""

    def all_lines(self) -> int:
        """Rows and columns of the whole."""
        return self.all_rows + self.all_columns


def block_of(parameter: Parameter) -> Block:
    """The part of a parameter that this rank holds.

    Raises:
        ConfigurationError: it is no rectangle of rows and columns.
    """
    shape = tuple(parameter.tensor.shape)
    local, offset, is_split = shape, (0,) * len(shape), False
    if isinstance(parameter.tensor, DTensor):
        local, offset = _local_shape_and_offset(parameter)
        is_split = not all(placement.is_replicate() for placement in parameter.tensor.placements)
    if local[2:] != shape[2:] and 0 not in local:
        raise ConfigurationError(
            f"parameter `{parameter.name}` of shape {shape} is sharded along its dimension {_first_sharded(local, shape)}; "
            "the first two can be"
        )
    inner = math.prod(shape[2:])
    columns = math.prod(local[1:])
    return Block(offset[0], local[0], shape[0], offset[1] * inner, columns, math.prod(shape[1:]), is_split)


def _first_sharded(local: tuple[int, ...], shape: tuple[int, ...]) -> int:
    return next(dim for dim in range(2, len(shape)) if local[dim] != shape[dim])


def _local_shape_and_offset(parameter: Parameter) -> tuple[tuple[int, ...], tuple[int, ...]]:
    local, offset = local_shape_and_offset(parameter.tensor)
    found = tuple(parameter.local().shape)
    if local != found:
        raise ConfigurationError(
            f"parameter `{parameter.name}` has {found} on this rank where its placements {parameter.tensor.placements} say {local}"
        )
    return local, offset
