"""The shape ν of a generalised Gaussian, f(w) ∝ exp(−|w/a|^ν), by the table of the released BackSlash code."""

from __future__ import annotations

import torch

from backslash import _native

# The table ends at these shapes, so estimates do too.
PUBLISHED_SHAPES = [index / 100 for index in range(10, 300)]
# What the command line takes where all weights are zero, which have no shape.
SHAPE_OF_ZEROS = 2.0


class ShapeTable:
    """Finds the shape whose ratio E[w²]/E[|w|]² is nearest, without asking the device for it.

    Args:
        device: Where the table is kept and looked up.
    """

    def __init__(self, device: torch.device) -> None:
        ratios = [_native.moment_ratio(shape) for shape in PUBLISHED_SHAPES]
        self._ratios = torch.tensor(ratios, dtype=torch.float64, device=device)
        self._shapes = torch.tensor(PUBLISHED_SHAPES, dtype=torch.float64, device=device)

    def of_sums(self, sums: torch.Tensor, count: int) -> torch.Tensor:
        """The shape of `count` weights with the sums (Σ|w|, Σw²), a tensor of 2; a tensor of no dimension in float64."""
        absolute, square = sums.unbind()
        ratio = square * count / absolute.square()
        nearest = (self._ratios - ratio).abs().argmin()
        # Indexing by a tensor of no dimension would wait for the device.
        shape = self._shapes.index_select(0, nearest.reshape(1)).squeeze(0)
        return torch.where(absolute > 0, shape, SHAPE_OF_ZEROS)
