"""The passes over weights as PyTorch operations, for any device and type: what the compiled ones are tested against.

P(x) is the probability of the cell of width Δ around x under the mixture; code lengths are −log₂ P(x), at x = q·Δ for the
code q and at x = w + Δ·u where weights have noise.
"""

from __future__ import annotations

import math

import torch

from backslash.torch.bits.block import Block
from backslash.torch.bits.models import CLASSES, Components
from backslash.torch.bits.noise import uniform

# Code lengths are capped where the model gives a probability below this, about 100 bits.
_LEAST_PROBABILITY = 1e-30
_LEVELS_PER_CLASS_LOG2 = 2
# Weights that are treated at a time, which bounds the memory that this takes.
_PIECE = 1 << 22
_LOG2_E = math.log2(math.e)


def with_noise(weights: torch.Tensor, step: torch.Tensor, key: int, block: Block) -> torch.Tensor:
    """w + Δ·u, u uniform in ±½."""
    matrix = _matrix(weights, block)
    return (matrix + step * uniform(key, block, weights.device)).reshape(weights.shape)


def rounded(
    weights: torch.Tensor, step: torch.Tensor, share: float, key: int, block: Block
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Δ·round(w/Δ), or that of a share of the weights; with the sums of the magnitudes of all codes over rows and columns."""
    matrix = _matrix(weights, block)
    codes = (matrix * (1 / step)).round_()
    points = codes * step
    if share < 1:
        points = torch.where(uniform(key, block, weights.device) < share - 0.5, points, matrix)
    magnitudes = codes.abs_()
    lines = [magnitudes.sum(dim, dtype=torch.float64) for dim in (1, 0)]
    return points.reshape(weights.shape), *lines


def add_rate(
    masters: torch.Tensor,
    points: torch.Tensor,
    gradient: torch.Tensor,
    weight_of_bit: torch.Tensor,
    tensor: int,
    components: Components,
    step: torch.Tensor,
    block: Block,
    levels: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Adds `weight_of_bit` times the gradient of the code length to `gradient`, in place.

    With levels of rows and columns it is that of the codes of `masters`, without any that of `points`. Returned are sums over
    the part, as a tensor of 6 in float64: of bits, of their derivatives by ln Δ at fixed points, by the logit and by ln s of
    both components, and Σ g·(point − w) with g the gradient after that.
    """
    sums = torch.zeros(6, dtype=torch.float64, device=masters.device)
    rows = max(1, _PIECE // max(1, block.columns))
    wide = gradient.float()
    pieces = zip(*(_matrix(t, block).split(rows) for t in (masters, points, wide)), strict=True)
    added = []
    for index, (piece, seen, before) in enumerate(pieces):
        if levels is None:
            classes, x = None, seen
        else:
            own = levels[0][index * rows :][: len(piece), None] + levels[1]
            classes = (own.int() + (1 << (_LEVELS_PER_CLASS_LOG2 - 1))) >> _LEVELS_PER_CLASS_LOG2
            classes = classes.clamp_(-(CLASSES // 2), CLASSES // 2).add_(CLASSES // 2)
            x = (piece * (1 / step)).round_().mul_(step)
        by_point, of_bits = _code_lengths(x, step, [components.of(tensor, at, classes) for at in (0, 1)])
        after = before + weight_of_bit * by_point
        through = (after * (seen - piece)).sum(dtype=torch.float64)
        sums += torch.cat((of_bits, through.reshape(1)))
        added.append(after)
    gradient.copy_(torch.cat(added).reshape(gradient.shape))
    return sums


def _code_lengths(
    x: torch.Tensor, step: torch.Tensor, components: list[tuple[torch.Tensor, ...]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """∂bits/∂x, and the first five sums of `add_rate`."""
    magnitude = x.abs()
    inside = magnitude < 0.5 * step
    cells = []
    for share, inverse_scale, inner, sinh, cosh in components:
        decay = (-magnitude * inverse_scale).exp_()
        # What is beyond the zero cell is not used there, so it need not be finite.
        growth, shrink = inner / decay.clamp(min=1e-30), inner * decay
        probability = torch.where(inside, 1 - 0.5 * (growth + shrink), decay * sinh)
        by_point = torch.where(inside, 0.5 * (shrink - growth), -decay * sinh)
        by_step = torch.where(inside, 0.25 * (growth + shrink), 0.5 * decay * cosh)
        cells.append((share, share * inverse_scale, probability, by_point, by_step))
    probability = sum(share * p for share, _, p, _, _ in cells).clamp_(min=_LEAST_PROBABILITY)
    inverse = 1 / probability
    by_magnitude = sum(slope * by for _, slope, _, by, _ in cells) * inverse
    total = lambda terms: terms.sum(dtype=torch.float64)
    by_step = total(sum(slope * by for _, slope, _, _, by in cells) * inverse)
    by_share = total((cells[0][2] - cells[1][2]) * inverse)
    # x·∂P/∂x + Δ·∂P/∂Δ of a component is −∂P/∂ln s.
    by_scales = [total(slope * (magnitude * by + step * by_step) * inverse) for _, slope, _, by, by_step in cells]
    logit_slope = (cells[0][0] * cells[1][0]).double()
    sums = (
        -total(probability.log2()),
        -_LOG2_E * step.double() * by_step,
        -_LOG2_E * logit_slope * by_share,
        *(_LOG2_E * by_scale for by_scale in by_scales),
    )
    return (-_LOG2_E * x.sign()) * by_magnitude, torch.stack(sums)


def _matrix(tensor: torch.Tensor, block: Block) -> torch.Tensor:
    return tensor.float().reshape(block.rows, block.columns)
