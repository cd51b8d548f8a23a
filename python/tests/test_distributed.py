"""Sharded and replicated training on the CPU ends at the weights of one process.

Every scenario runs in processes of its own by gloo, each on its part of the batch; the same training without
`torch.distributed` is what it is held against.
"""

import functools

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ranks import STEPS, batches, counted_all_reduces, fails_with_mistaken_counts, groups_of_one, process_group, share_of, whole

from backslash import ConfigurationError
from backslash.torch import RateRegularizer

WEIGHT = 2e-3
TOKENS = 13


class Network(torch.nn.Module):
    """Tied embeddings, first dimensions that no number of ranks divides, and a vector shorter than four ranks."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def drawn(*shape):
            # Third powers have a shape far below that of a Gaussian, and every tensor has a scale of its own.
            return torch.nn.Parameter(torch.randn(*shape, generator=generator) ** 3 * 0.1 * len(shape))

        self.embedding = drawn(13, 6)
        self.hidden = drawn(9, 6)
        self.back = drawn(6, 9)
        self.bias = drawn(9)
        self.short = drawn(1)
        self.output = self.embedding

    def forward(self, tokens):
        embedded = torch.nn.functional.embedding(tokens, self.embedding)
        hidden = torch.tanh(embedded @ self.hidden.T + self.bias)
        return (embedded + hidden @ self.back.T) @ self.output.T * (1 + self.short)


def train(model, rank=0, ranks=1, after_backward=lambda: None, weight=WEIGHT):
    """Trains on a rank's part of every batch, and returns the numbers that were reduced by the regulariser."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    regularizer = RateRegularizer(model.named_parameters(), weight).attach(optimizer)
    counts = []
    for inputs, targets in batches(TOKENS):
        share = share_of(rank, ranks)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs[share]), targets[share])
        loss.backward()
        after_backward()
        with counted_all_reduces(counts):
            optimizer.step()
    return counts


@functools.cache
def single_process(weight=WEIGHT):
    model = Network()
    assert train(model, weight=weight) == []
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def check(model, counts):
    """One all-reduce of two numbers per step, and the weights of one process."""
    assert counts == [2] * STEPS, counts
    expected = single_process()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            whole(parameter), expected[name.removeprefix("module.")], rtol=0, atol=1e-6
        )


def ddp(rank, ranks):
    model = Network()
    wrapped = DistributedDataParallel(model)
    check(model, train(wrapped, rank, ranks))


def fsdp(rank, ranks):
    model = fully_shard(Network(), mesh=init_device_mesh("cpu", (ranks,)))
    shards = [parameter.to_local() for parameter in model.parameters()]
    sizes: list = [None] * ranks
    dist.all_gather_object(sizes, [shard.numel() for shard in shards])
    assert any(0 in each for each in sizes), "no rank has an empty shard"
    assert len({tuple(each) for each in sizes}) > 1, "all ranks have as much"
    check(model, train(model, rank, ranks))


def fsdp_with_replicated(rank, ranks):
    """One parameter is left out of sharding, whole on every rank; its gradient is averaged by hand."""
    model = Network()
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)), ignored_params={model.hidden})
    assert not isinstance(model.hidden, DTensor) and isinstance(model.back, DTensor)

    def average():
        dist.all_reduce(model.hidden.grad)
        model.hidden.grad /= ranks

    check(model, train(model, rank, ranks, average))


def hsdp(rank, ranks):
    mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicate", "shard"))
    model = fully_shard(Network(), mesh=mesh)
    check(model, train(model, rank, ranks))


def a_mistaken_count_is_noticed(rank, ranks):
    fails_with_mistaken_counts(hsdp, rank, ranks)


def bits_and_shape(rank, ranks):
    alone = RateRegularizer(Network().parameters(), 0.0, process_group=groups_of_one(rank, ranks))
    model = fully_shard(Network(), mesh=init_device_mesh("cpu", (ranks,)))
    sharded = RateRegularizer(model.parameters(), 0.0)
    assert sharded.shape() == alone.shape()
    assert sharded.bits(0.01) == pytest.approx(alone.bits(0.01), rel=1e-12)


def disagreement(rank, ranks):
    model = Network()
    for other in (
        lambda: RateRegularizer(model.parameters(), WEIGHT if rank == 0 else 2 * WEIGHT),
        lambda: RateRegularizer(list(model.parameters())[: 5 - rank % 2], WEIGHT),
    ):
        with pytest.raises(ConfigurationError, match="rank 1 has another regulariser than rank 0"):
            other()
        dist.barrier()


def unfit_tensors(rank, ranks):
    mesh = init_device_mesh("cpu", (ranks,))
    partial = DTensor.from_local(torch.ones(4), mesh, [Partial()])
    with pytest.raises(ConfigurationError, match="`w` is a sum over ranks"):
        RateRegularizer([("w", partial)], WEIGHT)
    half = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("a", "b"))["b"]
    narrow = distribute_tensor(torch.ones(4), half, [Shard(0)])
    with pytest.raises(ConfigurationError, match=rf"`w` is spread over {ranks // 2} ranks"):
        RateRegularizer([("w", narrow)], WEIGHT)


def run(rank, ranks, address, scenarios):
    torch.set_num_threads(1)
    single_process()
    with process_group(rank, ranks, address):
        for scenario in scenarios:
            scenario(rank, ranks)
            dist.barrier()


@pytest.mark.parametrize(
    ("ranks", "scenarios"),
    [
        (2, [ddp, fsdp, fsdp_with_replicated, bits_and_shape, disagreement, unfit_tensors]),
        (4, [ddp, fsdp, fsdp_with_replicated, hsdp, a_mistaken_count_is_noticed, bits_and_shape]),
    ],
    ids=["2 processes", "4 processes"],
)
def test_ranks_end_at_the_weights_of_one_process(tmp_path, ranks, scenarios):
    arguments = (ranks, tmp_path / "rendezvous", scenarios)
    multiprocessing.spawn(run, args=arguments, nprocs=ranks, join=True)


def test_the_pull_matters_to_the_comparison():
    pulled, plain = single_process(), single_process(weight=0.0)
    assert all((pulled[name] - plain[name]).abs().max() > 1e-3 for name in pulled)
