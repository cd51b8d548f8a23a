"""How rows and columns of matrices differ in scale: what a coder that adapts to both knows."""

from __future__ import annotations

import torch

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

    The codes of a step are priced by the levels of the codes of the step before. So their own sums can wait for what else is
    added over all ranks at the end of the step. The first codes have no others before them, and are priced by their own.

    Args:
        blocks: What this rank holds of each tensor.
        replicas: How many ranks hold each of its elements.
        device: Where the sums are.
    """

    def __init__(self, blocks: list[Block], replicas: list[int], device: torch.device) -> None:
        self._blocks = blocks
        # Tensors that are split come first, so that their sums stand together.
        order = sorted(range(len(blocks)), key=lambda index: blocks[index].is_split)
        order.reverse()
        self._first = [0] * len(blocks)
        end = self._end_of_split = 0
        owner, count, row_lines, holders = [], [], [], []
        for index in order:
            block, self._first[index] = blocks[index], end
            owner += [index] * block.all_lines()
            holders += [replicas[index]] * block.all_lines() if block.is_split else []
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
        self._holders = torch.tensor(holders, dtype=torch.float64, device=device)
        self._levels = torch.zeros(end, dtype=torch.int16, device=device)
        self.known = False
        """Whether there are levels."""

    def clear(self) -> None:
        """All sums are zero."""
        self._sums.zero_()

    def put(self, tensor: int, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Takes note of the sums over the part of a tensor that this rank holds."""
        for own, sums in zip(self._parts(self._sums, tensor), (rows, columns), strict=True):
            own.copy_(sums)

    def of_split(self) -> torch.Tensor:
        """The sums of the tensors that are split: those of all ranks are to be added."""
        return self._sums[: self._end_of_split] / self._holders

    def follow(self, of_split: torch.Tensor, taken: torch.Tensor) -> None:
        """The levels from now on are those of the codes whose sums have been put.

        Args:
            of_split: What `of_split` gives, added over all ranks.
            taken: For which tensors, as booleans; others keep their levels.
        """
        # Shares of whole numbers may have been added.
        sums = torch.cat((of_split.round(), self._sums[self._end_of_split :]))
        total = torch.zeros_like(self._numbers)
        total.index_add_(0, self._owner[self._row_lines], sums[self._row_lines])
        mean = (total / self._numbers)[self._owner]
        own = (sums + _PRIOR * mean) / (self._count + _PRIOR)
        octaves = (_laplace_scale(own) / _laplace_scale(mean)).log2()
        # Without a code other than zero there is nothing to tell lines apart by.
        levels = (_LEVELS * octaves).nan_to_num(nan=0.0).clamp(-_FURTHEST, _FURTHEST)
        self._levels = torch.where(taken[self._owner], levels.to(torch.int16), self._levels)
        self.known = True

    def levels(self, tensor: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The levels of the rows and of the columns that this rank holds of a tensor, in int16."""
        return self._parts(self._levels, tensor)

    def state(self) -> torch.Tensor:
        """All levels, tensor by tensor and rows first, on the CPU: the same on all ranks, and however tensors are split."""
        return torch.cat([self._levels[own] for own in self._places()]).cpu()

    def restore(self, levels: torch.Tensor, known: bool) -> None:
        """Takes up what `state` has returned, and whether there were levels."""
        counts = [block.all_lines() for block in self._blocks]
        for own, values in zip(self._places(), levels.split(counts), strict=True):
            self._levels[own] = values.to(self._levels)
        self.known = known

    def _places(self) -> list[slice]:
        """Where the lines of each tensor are."""
        pairs = zip(self._first, self._blocks, strict=True)
        return [slice(first, first + block.all_lines()) for first, block in pairs]

    def _parts(self, values: torch.Tensor, tensor: int) -> tuple[torch.Tensor, torch.Tensor]:
        block, first = self._blocks[tensor], self._first[tensor]
        rows = first + block.first_row
        columns = first + block.all_rows + block.first_column
        return values[rows : rows + block.rows], values[columns : columns + block.columns]


def _laplace_scale(mean_magnitude: torch.Tensor) -> torch.Tensor:
    return 0.5 / (0.5 / mean_magnitude).asinh()
