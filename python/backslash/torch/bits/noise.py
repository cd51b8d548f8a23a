"""Uniform numbers by position, so that any part of a tensor can be drawn alone: those of the command line, bit for bit."""

from __future__ import annotations

import torch

from backslash.torch.bits.block import Block

_MASK = (1 << 64) - 1


def noise_key(seed: int, step: int, tensor: int) -> int:
    """A key of its own for each training, step and tensor."""
    key = seed & _MASK
    for part in (step, tensor):
        key = ((key ^ ((part + 1) & _MASK)) * 0xD6E8_FEB8_6659_FD93) & _MASK
        key ^= key >> 32
    return key


def uniform(key: int, block: Block, device: torch.device) -> torch.Tensor:
    """Numbers in ±½ in float32, by SplitMix64 over the position that each has in the whole tensor."""
    rows = torch.arange(block.first_row, block.first_row + block.rows, device=device)
    columns = torch.arange(block.first_column, block.first_column + block.columns, device=device)
    # Integers of 64 bits with a sign have the same products modulo 2^64 as those without.
    z = rows[:, None] * block.all_columns + columns
    z = z.mul_(_signed(0x9E37_79B9_7F4A_7C15)).add_(_signed(key))
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        z = (z ^ _shifted(z, shift)).mul_(_signed(factor))
    z = z ^ _shifted(z, 31)
    return _shifted(z, 40).float().mul_(2.0**-24).sub_(0.5 - 2.0**-25)


def _shifted(z: torch.Tensor, by: int) -> torch.Tensor:
    """The bits further right, with zeros behind them."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
