"""What the codes of weights would cost, estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist

from backslash.errors import ConfigurationError
from backslash.torch.parameters import Parameter

# Codes of larger magnitude would make a histogram of more than 16 MB.
LARGEST_CODE = 1 << 20


def code_entropy(
    parameters: Iterable[Parameter],
    step: float,
    device: torch.device,
    all_reduce: Callable[..., None],
) -> float:
    """Entropy of the histogram of round(w/step) over the distinct elements of all ranks, in bits per weight.

    Raises:
        ConfigurationError: the step is so fine, or the weights so large, that codes exceed 2^20.
    """
    shards = [(p.local(), p.replicas) for p in parameters]
    shards = [(shard, replicas) for shard, replicas in shards if shard.numel() > 0]
    largest = torch.zeros((), dtype=torch.float64, device=device)
    for shard, _ in shards:
        largest = torch.maximum(largest, shard.abs().max().double())
    all_reduce(largest, dist.ReduceOp.MAX if dist.is_available() else None)
    bound = largest.item() / step
    if not bound < LARGEST_CODE:
        raise ConfigurationError(
            f"at a step of {step} the largest weight, {largest.item()}, has no code below 2^20; use a coarser step"
        )
    offset = round(bound) + 1
    histogram = torch.zeros(2 * offset + 1, dtype=torch.float64, device=device)
    for shard, replicas in shards:
        codes = (shard.flatten().double() / step).round_().long() + offset
        histogram += torch.bincount(codes, minlength=histogram.numel()) / replicas
    all_reduce(histogram)
    shares = histogram[histogram > 0] / histogram.sum()
    return -(shares * shares.log2()).sum().item()
