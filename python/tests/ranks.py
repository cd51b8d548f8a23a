"""What the tests in several processes have in common: batches, and the ranks that share them."""

import contextlib
import os
import sys

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

STEPS = 20
BATCH = 16


def batches(vocabulary):
    """Inputs and targets of every step, the same on all ranks."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(STEPS):
        tokens = torch.randint(vocabulary, (BATCH, 2), generator=generator)
        yield tokens[:, 0], tokens[:, 1]


def share_of(rank, ranks):
    """A rank's part of a batch."""
    return slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)


def whole(parameter):
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.clone()


def groups_of_one(rank, ranks):
    return [dist.new_group([other]) for other in range(ranks)][rank]


@contextlib.contextmanager
def counted_all_reduces(counts):
    """Counts the calls of `torch.distributed.all_reduce`, which training itself does not make, and their elements."""
    original = dist.all_reduce

    def counting(tensor, *arguments, **named):
        counts.append(tensor.numel())
        return original(tensor, *arguments, **named)

    dist.all_reduce = counting
    try:
        yield
    finally:
        dist.all_reduce = original


def fails_with_mistaken_counts(scenario, rank, ranks):
    """With elements counted as often as they are held, a test for replicas fails."""
    import backslash.torch.parameters as counted

    original, counted._replicas = counted._replicas, lambda *_: 1
    try:
        with pytest.raises(AssertionError):
            scenario(rank, ranks)
    finally:
        counted._replicas = original


@contextlib.contextmanager
def process_group(rank, ranks, rendezvous):
    """The ranks of processes of their own, which end with it."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
    # Meshes keep threads of gloo beyond the group; a tensor that one of them still holds aborts an interpreter that ends.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
