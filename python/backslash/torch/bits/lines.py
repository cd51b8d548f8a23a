"""How rows and columns of matrices differ in scale: what a coder that adapts to both knows."""

from __future__ import annotations

import torch
import torch.distributed as dist

from backslash.torch.bits.block import Block

# Codes of average magnitude that a line is assumed to have more: the fewer it has, the less it says.
_PRIOR = 8.0
# Levels of lines per octave of scale, and the furthest from the mean.
_LEVELS = 16.0
_FURTHEST = 8.0 * _LEVELS


class Lines:
    """Sums of the magnitudes of the codes over rows and columns of all tensors, and the levels that follow from them.

    A line's scale is that of a Laplace distribution whose codes have its mean magnitude M: s = Δ / 2·asinh(1/2M). Its level
    is that scale over the one of the whole, in sixteenths of an octave. Sums are whole numbers, so it does not matter
    over how many ranks, and in which order, they are taken.

    Args:
        blocks: What this rank holds of each tensor.
        replicas: How many ranks hold each of its elements.
        device: Where the sums are.
        process_group: The ranks that tensors are spread over.
    """

    def __init__(
        self,
        blocks: list[Block],
        replicas: list[int],
        device: torch.device,
        process_group: dist.ProcessGroup | None,
    ) -> None:
        self._blocks = blocks
        self._replicas = replicas
        self._process_group = process_group
        # Tensors that are split come first, so that their sums can be added over ranks by one call.
        order = sorted(range(len(blocks)), key=lambda index: blocks[index].is_split)
        order.reverse()
        self._first = [0] * len(blocks)
        end = self._end_of_split = 0
        owner, count, row_lines = [], [], []
        for index in order:
            block, self._first[index] = blocks[index], end
            owner += [index] * block.all_lines()
            count += [block.all_columns] * block.all_rows + [block.all_rows] * block.all_columns
            row_lines += range(end, end + block.all_rows)
            end += block.all_lines()
            if block.is_split:
                self._end_of_split = end
        self._sums = torch.zeros(end, dtype=torch.float64, device=device)
        self._owner = torch.tensor(owner, device=device)
        self._count = torch.tensor(count, dtype=torch.float64, device=device)
        self._row_lines = torch.tensor(row_lines, device=device)
        numbers = [block.all_rows * block.all_columns for block in blocks]
        self._numbers = torch.tensor(numbers, dtype=torch.float64, device=device)
        self._levels = torch.zeros(end, dtype=torch.int16, device=device)

    def clear(self) -> None:
        """All sums are zero."""
        self._sums.zero_()

    def put(self, tensor: int, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Takes note of the sums over the part of a tensor that this rank holds."""
        for own, sums in zip(self._parts(self._sums, tensor), (rows, columns), strict=True):
            own.copy_(sums)

    def add_up(self) -> None:
        """Adds the sums of all ranks and finds the levels."""
        split = self._sums[: self._end_of_split]
        if split.numel() > 0:
            for index, block in enumerate(self._blocks):
                if block.is_split and self._replicas[index] > 1:
                    first = self._first[index]
                    self._sums[first : first + block.all_lines()] /= self._replicas[index]
            dist.all_reduce(split, group=self._process_group)
            split.round_()
        total = torch.zeros_like(self._numbers)
        total.index_add_(0, self._owner[self._row_lines], self._sums[self._row_lines])
        mean = (total / self._numbers)[self._owner]
        own = (self._sums + _PRIOR * mean) / (self._count + _PRIOR)
        octaves = (_laplace_scale(own) / _laplace_scale(mean)).log2()
        # Without a code other than zero there is nothing to tell lines apart by.
        levels = (_LEVELS * octaves).nan_to_num(nan=0.0).clamp(-_FURTHEST, _FURTHEST)
        self._levels = levels.to(torch.int16)

    def levels(self, tensor: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The levels of the rows and of the columns that this rank holds of a tensor, in int16."""
        return self._parts(self._levels, tensor)

    def _parts(self, values: torch.Tensor, tensor: int) -> tuple[torch.Tensor, torch.Tensor]:
        block, first = self._blocks[tensor], self._first[tensor]
        rows = first + block.first_row
        columns = first + block.all_rows + block.first_column
        return values[rows : rows + block.rows], values[columns : columns + block.columns]


def _laplace_scale(mean_magnitude: torch.Tensor) -> torch.Tensor:
    return 0.5 / (0.5 / mean_magnitude).asinh()
