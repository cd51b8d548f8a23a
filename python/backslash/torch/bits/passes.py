"""The passes over one tensor's weights: compiled where they are contiguous float32 on the CPU, else as PyTorch operations."""

from __future__ import annotations

from typing import NamedTuple

import torch

from backslash import _native
from backslash.torch.bits import reference
from backslash.torch.bits.block import Block
from backslash.torch.bits.models import Components
from backslash.torch.parameters import is_plain, values


class Quantiser(NamedTuple):
    """What weights are quantised by."""

    step: torch.Tensor
    share: float | None
    """Share of the weights that are rounded; None for noise."""
    key: int


class Model(NamedTuple):
    """All tensors' models at one step, and which of them it is about."""

    tensor: int
    components: Components
    steps: torch.Tensor
    values: torch.Tensor

    def numbers(self) -> tuple[float, float, list[float]]:
        """Step, logit and ln s of both components; without a wait on the CPU only."""
        _, logit, *scales = self.values[self.tensor].tolist()
        return self.steps[self.tensor].item(), logit, scales


class _NativeQuantiser(NamedTuple):
    step: float
    share: float
    key: int


Lines = tuple[torch.Tensor, torch.Tensor, float]
"""Sums of the magnitudes of codes over rows and columns, and their maximum where compiled passes need it."""


def quantise(
    weights: torch.Tensor, masters: torch.Tensor, quantiser: Quantiser, block: Block
) -> Lines | None:
    """`masters` ← `weights` ← the quantised weights; the sums over lines, where weights are rounded."""
    if weights.numel() == 0:
        return None
    step, share, key = quantiser
    if is_plain(weights, masters):
        arguments = torch.get_num_threads(), values(weights), values(masters), block
        native = _NativeQuantiser(step.item(), 0.0 if share is None else share, key)
        if share is None:
            lines = _native.add_noise(*arguments, native)
        else:
            rows, columns, largest = _native.round_weights(*arguments, native)
            lines = torch.from_numpy(rows), torch.from_numpy(columns), largest
        torch.autograd.graph.increment_version(weights)
        return lines
    masters.copy_(weights)
    if share is None:
        weights.copy_(reference.with_noise(masters, step, key, block))
        return None
    points, rows, columns = reference.rounded(masters, step, share, key, block)
    weights.copy_(points)
    return rows, columns, 0.0


def add_rate(
    masters: torch.Tensor,
    points: torch.Tensor,
    gradient: torch.Tensor,
    weight_of_bit: torch.Tensor,
    model: Model,
    block: Block,
    levels: tuple[torch.Tensor, torch.Tensor] | None,
    largest: float,
) -> torch.Tensor:
    """As `reference.add_rate`; then `points` ← `masters`."""
    if masters.numel() == 0:
        return torch.zeros(6, dtype=torch.float64, device=masters.device)
    if is_plain(masters, points, gradient):
        arguments = (
            torch.get_num_threads(),
            values(masters),
            values(points),
            values(gradient),
            model.numbers(),
            weight_of_bit.item(),
        )
        if levels is None:
            sums = _native.add_rate_of_noise(*arguments)
        else:
            sums = _native.add_rate_of_codes(*arguments, *(level.numpy() for level in levels), largest)
        torch.autograd.graph.increment_version((points, gradient))
        return torch.tensor(sums, dtype=torch.float64)
    tensor, components, steps, _ = model
    step = steps[tensor]
    sums = reference.add_rate(
        masters, points, gradient, weight_of_bit, tensor, components, step, block, levels
    )
    points.copy_(masters)
    return sums
