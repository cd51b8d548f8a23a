"""The method "bits" in sharded and replicated training on the CPU, and both methods in tensor-parallel training.

Weights after 20 steps are those of one process, through plain steps, steps with noise, which depends on the place of an
element in its tensor, and steps that round.
"""

import copy
import functools

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import Shard
from torch.nn.parallel import DistributedDataParallel

from ranks import STEPS, batches, counted_all_reduces, fails_with_mistaken_counts, groups_of_one, process_group, share_of, whole

from backslash import ConfigurationError
from backslash.torch import RateRegularizer, load_file
from backslash.torch.bits import passes

TOKENS = 70
NOISE_FROM, ROUNDING_FROM, STOPPED_AFTER = 3, 8, 12
TENSORS, LINES = 3, 71 + 16 + 67 + 16 + 16 + 67


class Network(torch.nn.Module):
    """Tied embeddings and first dimensions that no number of ranks divides; biases have no codes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.embedding = torch.nn.Embedding(71, 16)
        self.hidden = torch.nn.Linear(16, 67)
        self.back = torch.nn.Linear(67, 16)
        self.head = torch.nn.Linear(16, 71)
        self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) ** 3 * 0.1

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + self.back(torch.tanh(self.hidden(x))))


OPTIONS = {
    "bits": {"weight": 1.0, "steps": STEPS, "start": NOISE_FROM, "rounding_from": ROUNDING_FROM, "rounded_share": 0.5},
    "backslash": {"weight": 2e-3},
}


def train(model, rank=0, ranks=1, method="bits", after_backward=lambda: None, data=None, state=None):
    """Trains on a rank's part of every batch; the regulariser, and the numbers that it has reduced in each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, foreach=False)
    regularizer = RateRegularizer(model.named_parameters(), method=method, **OPTIONS[method])
    if state is not None:
        regularizer.load_state_dict(state)
    regularizer.attach(optimizer)
    counts = []
    for inputs, targets in data or batches(TOKENS):
        share = share_of(rank, ranks)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[share]), targets[share]).backward()
        after_backward()
        counts.append([])
        with counted_all_reduces(counts[-1]):
            optimizer.step()
    return regularizer, counts


@functools.cache
def single_process(method):
    model = Network()
    regularizer, counts = train(model, method=method)
    assert counts == [[]] * STEPS
    steps = regularizer.learned_steps() if method == "bits" else {}
    with regularizer.master_weights():
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return weights, regularizer.bits(), steps


def gone_on(weights, state, wrap=lambda model: model, rank=0, ranks=1):
    """The weights after the steps that are left, and the numbers that were reduced in each."""
    model = Network()
    model.load_state_dict(weights)
    model = wrap(model)
    regularizer, counts = train(model, rank, ranks, data=list(batches(TOKENS))[STOPPED_AFTER:], state=state)
    with regularizer.master_weights():
        return {name: whole(parameter) for name, parameter in model.named_parameters()}, counts


@functools.cache
def stopped():
    """Weights and state of one process that has stopped where weights are rounded, and the weights after going on from there."""
    model = Network()
    regularizer, _ = train(model, data=list(batches(TOKENS))[:STOPPED_AFTER])
    with regularizer.master_weights():
        weights = copy.deepcopy(model.state_dict())
    state = regularizer.state_dict()
    return weights, state, gone_on(weights, state)[0]


def check(model, regularizer, method="bits"):
    weights, bits, steps = single_process(method)
    with regularizer.master_weights():
        for name, parameter in model.named_parameters():
            expected = weights[name.removeprefix("module.")]
            torch.testing.assert_close(whole(parameter), expected, rtol=0, atol=1e-6)
    if method == "bits":
        assert regularizer.bits() == pytest.approx(bits, rel=1e-5)
        for name, step in regularizer.learned_steps().items():
            assert step == pytest.approx(steps[name.removeprefix("module.")], rel=1e-5)


def check_counts(counts, lines, tensors=TENSORS, begins_after=NOISE_FROM - 1, rounds_after=ROUNDING_FROM - 1):
    """One all-reduce per step: seven sums for each tensor, and with them those of `lines` of split tensors where codes have
    been seen. Before the rate there is none but that of squares, where it begins, and the first codes add their own lines.
    """
    expected = [[] for _ in range(begins_after)] + [[tensors]]
    expected += [[7 * tensors] for _ in range(begins_after + 1, rounds_after + 1)]
    expected += [[7 * tensors + lines] for _ in range(rounds_after + 1, len(counts))]
    if lines:
        expected[rounds_after] += [lines]
    assert counts == expected, counts


def ddp(rank, ranks):
    model = DistributedDataParallel(Network())
    regularizer, counts = train(model, rank, ranks)
    check_counts(counts, 0)
    check(model, regularizer)


def fsdp(rank, ranks):
    model = fully_shard(Network(), mesh=init_device_mesh("cpu", (ranks,)))
    rows = [None] * ranks
    dist.all_gather_object(rows, model.embedding.weight.to_local().shape[0])
    assert len(set(rows)) > 1, "all ranks have as much"
    regularizer, counts = train(model, rank, ranks)
    check_counts(counts, LINES)
    check(model, regularizer)


def fsdp_by_operations(rank, ranks):
    """As on other devices than the CPU."""
    original, passes.is_plain = passes.is_plain, lambda *tensors: False
    try:
        fsdp(rank, ranks)
    finally:
        passes.is_plain = original


def fsdp_with_replicated(rank, ranks):
    model = Network()
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)), ignored_params={model.hidden.weight})
    assert not isinstance(model.hidden.weight, DTensor) and isinstance(model.back.weight, DTensor)

    def average():
        dist.all_reduce(model.hidden.weight.grad)
        model.hidden.weight.grad /= ranks

    regularizer, counts = train(model, rank, ranks, after_backward=average)
    check_counts(counts, LINES - 16 - 67)
    check(model, regularizer)


def hsdp(rank, ranks):
    mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicate", "shard"))
    model = fully_shard(Network(), mesh=mesh)
    regularizer, counts = train(model, rank, ranks)
    check_counts(counts, LINES)
    check(model, regularizer)


def a_mistaken_count_is_noticed(rank, ranks):
    fails_with_mistaken_counts(hsdp, rank, ranks)


def an_empty_shard(rank, ranks):
    """A row less than there are ranks."""
    mesh = init_device_mesh("cpu", (ranks,))
    values = torch.randn(ranks - 1, 5000, generator=torch.Generator().manual_seed(1))

    def bits_after(parameter):
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        options = {"method": "bits", "start": 0, "rounding_from": 2}
        group = None if isinstance(parameter, DTensor) else groups_of_one(rank, ranks)
        counts = [[]]
        with counted_all_reduces(counts[-1]):
            regularizer = RateRegularizer([("w", parameter)], 1.0, process_group=group, **options).attach(optimizer)
        for _ in range(4):
            counts.append([])
            with counted_all_reduces(counts[-1]):
                optimizer.step()
        if group is None:
            check_counts(counts, ranks - 1 + 5000, tensors=1, begins_after=0, rounds_after=2)
        return regularizer.bits(), whole(parameter)

    alone = bits_after(torch.nn.Parameter(values.clone()))
    shards = torch.nn.Parameter(distribute_tensor(values, mesh, [Shard(0)]))
    assert (shards.to_local().numel() == 0) == (rank == ranks - 1)
    sharded = bits_after(shards)
    assert sharded[0] == pytest.approx(alone[0], rel=1e-6)
    torch.testing.assert_close(sharded[1], alone[1], rtol=0, atol=1e-6)


def unfit_shards(rank, ranks):
    mesh = init_device_mesh("cpu", (ranks,))
    experts = distribute_tensor(torch.ones(4, 32, 32 * ranks), mesh, [Shard(2)])
    with pytest.raises(ConfigurationError, match="`w` of shape .* is sharded along its dimension 2"):
        RateRegularizer([("w", experts)], 1.0, method="bits", start=0, rounding_from=0)


def disagreement(rank, ranks):
    with pytest.raises(ConfigurationError, match="rank 1 has another regulariser than rank 0"):
        RateRegularizer(Network().parameters(), 1.0, method="bits", steps=10 + rank)
    dist.barrier()


class Block(torch.nn.Module):
    """What tensor parallelism splits: a matrix by its rows, and the next one by its columns."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.up = torch.nn.Linear(24, 64, bias=False)
        self.down = torch.nn.Linear(64, 70, bias=False)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) ** 3 * 0.1

    def forward(self, tokens):
        x = torch.nn.functional.one_hot(tokens % 24, 24).float()
        return self.down(torch.tanh(self.up(x)))


PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


@functools.cache
def single_block(method):
    model = Block()
    regularizer, _ = train(model, method=method)
    with regularizer.master_weights():
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}, regularizer.bits()


def tensor_parallel(rank, ranks):
    """All ranks see the whole batch."""
    for method in OPTIONS:
        mesh = init_device_mesh("cpu", (ranks,))
        model = parallelize_module(Block(), mesh, PLAN)
        assert model.up.weight.to_local().shape == (64 // ranks, 24)
        assert model.down.weight.to_local().shape == (70, 64 // ranks)
        check_block(model, *train(model, method=method), method)


def sharded_tensor_parallel(rank, ranks):
    """Tensor-parallel pairs of ranks, over which parameters are sharded again."""
    for method in OPTIONS:
        mesh = init_device_mesh("cpu", (ranks // 2, 2), mesh_dim_names=("data", "tensor"))
        model = parallelize_module(Block(), mesh["tensor"], PLAN)
        fully_shard(model, mesh=mesh["data"])
        check_block(model, *train(model, rank // 2, ranks // 2, method), method)


def check_block(model, regularizer, counts, method):
    weights, bits = single_block(method)
    if method == "bits":
        check_counts(counts, 64 + 24 + 70 + 64, tensors=2)
    with regularizer.master_weights():
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(whole(parameter), weights[name], rtol=0, atol=1e-6)
    assert regularizer.bits() == pytest.approx(bits, rel=1e-5)


def a_state_of_any_number_of_ranks(rank, ranks):
    """Levels are those of one process, and ranks go on with them where it has stopped."""
    weights, state, expected = stopped()
    shard = functools.partial(fully_shard, mesh=init_device_mesh("cpu", (ranks,)))
    regularizer, _ = train(shard(Network()), rank, ranks, data=list(batches(TOKENS))[:STOPPED_AFTER])
    levels = regularizer.state_dict()["bits"]["levels"]
    assert torch.equal(levels, state["bits"]["levels"]) and len(levels.unique()) > 10
    found, counts = gone_on(weights, state, shard, rank, ranks)
    assert counts == [[7 * TENSORS + LINES]] * (STEPS - STOPPED_AFTER), counts
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def saved(rank, ranks, folder):
    """The first rank writes, all know what, and whatever goes wrong there goes wrong everywhere."""
    model = fully_shard(Network(), mesh=init_device_mesh("cpu", (ranks,)))
    regularizer, _ = train(model, rank, ranks)
    path = folder / f"{ranks}.bsl"
    size = regularizer.save(path, effort="fast")
    loaded = load_file(path)
    assert size.total == path.stat().st_size
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            continue
        assert torch.equal(whole(parameter), loaded[name]), name
    with pytest.raises(FileExistsError):
        regularizer.save(path)


def run(rank, ranks, folder, scenarios):
    torch.set_num_threads(1)
    for method in OPTIONS:
        single_process(method), single_block(method)
    stopped()
    with process_group(rank, ranks, folder / "rendezvous"):
        for scenario in scenarios:
            scenario(rank, ranks, *([folder] if scenario is saved else []))
            dist.barrier()


@pytest.mark.parametrize(
    ("ranks", "scenarios"),
    [
        (2, [ddp, fsdp, fsdp_with_replicated, an_empty_shard, tensor_parallel, saved, unfit_shards, disagreement]),
        (2, [a_state_of_any_number_of_ranks]),
        (4, [ddp, fsdp, fsdp_by_operations, fsdp_with_replicated, hsdp, a_mistaken_count_is_noticed]),
        (4, [an_empty_shard, tensor_parallel, sharded_tensor_parallel, saved]),
    ],
    ids=["2 processes", "2 processes, resumed", "4 processes", "4 processes, tensor-parallel"],
)
def test_ranks_end_at_the_weights_of_one_process(tmp_path, ranks, scenarios):
    multiprocessing.spawn(run, args=(ranks, tmp_path, scenarios), nprocs=ranks, join=True)


def test_the_rate_matters_to_the_comparison():
    priced, _, steps = single_process("bits")
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for inputs, targets in batches(TOKENS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    for name in steps:
        assert (priced[name] - model.get_parameter(name)).abs().max() > 1e-3
