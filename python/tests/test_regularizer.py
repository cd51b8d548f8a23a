"""The method of the paper, held against a statement of it in NumPy and double precision."""

import copy
import math

import numpy
import pytest
import torch

from backslash import ConfigurationError, _native
from backslash.torch import RateRegularizer
from backslash.torch.pull import pull, pull_by_operations

SHAPES = [index / 100 for index in range(10, 300)]
RATIOS = [
    math.exp(math.lgamma(1 / shape) + math.lgamma(3 / shape) - 2 * math.lgamma(2 / shape))
    for shape in SHAPES
]


def published_shape(weights):
    """ν of all weights: E[θ²]/E[|θ|]² by the nearest entry of the table."""
    everything = numpy.concatenate([w.ravel() for w in weights]).astype(numpy.float64)
    ratio = numpy.mean(everything**2) / numpy.mean(numpy.abs(everything)) ** 2
    return SHAPES[int(numpy.argmin([abs(entry - ratio) for entry in RATIOS]))]


def paper_step(weights, paper_lambda, epsilon):
    """θ ← θ − λ·ν/N·sign(θ)·(|θ|+ε)^(ν−1)."""
    shape = published_shape(weights)
    count = sum(w.size for w in weights)
    pull = paper_lambda * shape / count
    wide = [w.astype(numpy.float64) for w in weights]
    return [w - pull * numpy.sign(w) * (numpy.abs(w) + epsilon) ** (shape - 1) for w in wide]


def drawn(shape, sizes, seed):
    """Tensors of a generalised Gaussian, with zeros among them, and each of a scale of its own."""
    random = numpy.random.default_rng(seed)
    tensors = []
    for index, size in enumerate(sizes):
        magnitude = random.gamma(1 / shape, size=size) ** (1 / shape)
        tensor = 0.1 * (index + 1) * magnitude * random.choice([-1, 1], size=size)
        tensor.flat[:: 1 + tensor.size // 3] = 0
        tensors.append(tensor.astype(numpy.float32))
    return tensors


def parameters(tensors):
    return [torch.nn.Parameter(torch.from_numpy(tensor.copy())) for tensor in tensors]


@pytest.mark.parametrize("shape", [0.05, 0.3, 0.8, 1.0, 1.5, 2.0, 6.0])
@pytest.mark.parametrize("epsilon", [1.0, 0.01])
def test_steps_are_those_of_the_paper(shape, epsilon):
    tensors = drawn(shape, [(40, 30), (7,), (3, 5, 11)], seed=int(100 * shape))
    count = sum(tensor.size for tensor in tensors)
    ours = parameters(tensors)
    paper_lambda = 1e-3 * count
    regularizer = RateRegularizer(ours, weight=paper_lambda / count, epsilon=epsilon)
    for _ in range(5):
        assert regularizer.shape() == published_shape(tensors)
        tensors = [t.astype(numpy.float32) for t in paper_step(tensors, paper_lambda, epsilon)]
        regularizer.step()
        for ours_now, expected in zip(ours, tensors, strict=True):
            numpy.testing.assert_allclose(ours_now.detach().numpy(), expected, rtol=1e-6, atol=1e-6)
    assert regularizer.steps == 5


def trained(optimizer_of, attach=None, after_step=None):
    """A network after 20 steps on fixed data."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    optimizer = optimizer_of(model.parameters())
    if attach:
        attach(model, optimizer)
    inputs, targets = torch.randn(32, 8), torch.randint(3, (32,))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        scheduler.step()
        if after_step:
            after_step(model)
    return model


OPTIMIZERS = [
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
]


@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_an_attached_regularizer_steps_after_any_optimizer(optimizer_of):
    weight, regularizers = 1e-3, []

    def attach(model, optimizer):
        regularizers.append(RateRegularizer(model.named_parameters(), weight).attach(optimizer))

    def step_of_the_paper(model):
        weights = [parameter.detach().numpy() for parameter in model.parameters()]
        stepped = paper_step(weights, weight * sum(w.size for w in weights), 1.0)
        for parameter, values in zip(model.parameters(), stepped, strict=True):
            parameter.data.copy_(torch.from_numpy(values))

    ours = trained(optimizer_of, attach=attach)
    expected = trained(optimizer_of, after_step=step_of_the_paper)
    assert regularizers[0].steps == 20
    for one, other in zip(ours.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_detached_regularizer_leaves_weights_alone():
    values = drawn(1.0, [(10, 10)], seed=2)
    (parameter,) = parameters(values)
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    regularizer = RateRegularizer([parameter], 1e-2).attach(optimizer)
    regularizer.detach()
    optimizer.step()
    assert regularizer.steps == 0 and numpy.array_equal(parameter.detach().numpy(), values[0])
    regularizer.attach(optimizer)
    optimizer.step()
    assert regularizer.steps == 1 and not numpy.array_equal(parameter.detach().numpy(), values[0])


def test_the_learning_rate_does_not_multiply_the_pull():
    tensors = drawn(1.0, [(30, 30)], seed=3)
    results = []
    for rate in (1e-9, 10.0):
        (parameter,) = parameters(tensors)
        optimizer = torch.optim.SGD([parameter], lr=rate)
        RateRegularizer([parameter], 1e-3).attach(optimizer)
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        results.append(parameter.detach())
    assert torch.equal(*results) and not torch.equal(results[0], torch.from_numpy(tensors[0]))


def test_groups_share_the_shape_and_have_their_own_weights():
    tensors = drawn(0.7, [(30, 30), (20, 20)], seed=4)
    first, second = parameters(tensors)
    groups = [{"params": [("first", first)], "weight": 2e-3}, {"params": second}]
    regularizer = RateRegularizer(groups, weight=1e-3)
    count = sum(tensor.size for tensor in tensors)
    regularizer.step()
    for parameter, weight, index in ((first, 2e-3, 0), (second, 1e-3, 1)):
        expected = paper_step(tensors, weight * count, 1.0)[index]
        numpy.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-6)


def test_a_tied_parameter_counts_once():
    tensors = drawn(0.7, [(30, 30), (20, 20)], seed=5)
    first, second = parameters(tensors)
    regularizer = RateRegularizer([first, second, first], 1e-3)
    assert regularizer.shape() == published_shape(tensors)
    regularizer.step()
    expected = paper_step(tensors, 1e-3 * (900 + 400), 1.0)
    numpy.testing.assert_allclose(first.detach().numpy(), expected[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [0.3, 1.0, 1.36, 2.5])
@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_a_pull_is_that_of_the_crate(shape, epsilon):
    """PyTorch's operations, which other devices have, against the compiled pass of the command line."""
    values = torch.from_numpy(drawn(shape, [(300, 70)], seed=15)[0])
    compiled, operations = values.clone(), values.clone()
    wide = torch.tensor(shape, dtype=torch.float64)
    pull(compiled, 1e-2, wide, epsilon)
    pull_by_operations(operations, 1e-2, wide, epsilon)
    torch.testing.assert_close(compiled, operations, rtol=2e-7, atol=1e-6 * (compiled - values).abs().max().item())
    assert (compiled - values).abs().max() > 1e-3
    assert torch.equal(compiled == 0, operations == 0)
    moments = _native.moments(2, values.flatten().numpy())
    expected = values.double().abs().sum().item(), values.double().square().sum().item()
    assert moments == pytest.approx(expected, rel=1e-12)


def test_what_is_no_number_stays_that():
    parameter = torch.nn.Parameter(torch.tensor([[math.nan, 1.0, math.inf, -2.0]]))
    pull(parameter.detach(), 0.5, torch.tensor(1.0, dtype=torch.float64), 1.0)
    numpy.testing.assert_array_equal(parameter.detach().numpy(), [[math.nan, 0.5, math.inf, -1.5]])


def test_zeros_stay_and_have_the_shape_of_the_command_line():
    (parameter,) = parameters([numpy.zeros((4, 4), numpy.float32)])
    regularizer = RateRegularizer([parameter], 1.0)
    regularizer.step()
    assert regularizer.shape() == 2.0 and not parameter.any()


def test_strided_and_double_parameters_move_too():
    values = drawn(1.2, [(20, 30)], seed=6)[0]
    strided = torch.nn.Parameter(torch.from_numpy(values.T.copy()).T)
    double = torch.nn.Parameter(torch.from_numpy(values.astype(numpy.float64)))
    expected = paper_step([values], 600 * 1e-3, 1.0)[0]
    for parameter, tolerance in ((strided, 1e-7), (double, 1e-15)):
        RateRegularizer([parameter], 1e-3).step()
        numpy.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=tolerance)


def test_short_types_are_pulled_in_float32_with_a_warning():
    values = drawn(1.2, [(20, 30)], seed=7)[0]
    parameter = torch.nn.Parameter(torch.from_numpy(values).bfloat16())
    rounded = parameter.detach().float().numpy()
    with pytest.warns(UserWarning, match="bfloat16.*float32"):
        regularizer = RateRegularizer([("w", parameter)], 0.1)
    regularizer.step()
    expected = torch.from_numpy(paper_step([rounded], 600 * 0.1, 1.0)[0]).bfloat16()
    wrong = (parameter != expected).float().mean().item()
    assert wrong < 0.01, "all but ties of rounding"


def test_a_step_that_a_gradient_scaler_leaves_out_is_not_followed_by_a_pull():
    values = drawn(1.0, [(10, 10)], seed=8)
    (parameter,) = parameters(values)
    # Fused optimizers look for infinities themselves: their step is called all the same.
    optimizer = torch.optim.SGD([parameter], lr=0.1, fused=True)
    RateRegularizer([parameter], 1e-2).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for gradient, is_left_out in ((math.inf, True), (0.0, False)):
        scaler.scale(torch.ones(()))
        parameter.grad = torch.full_like(parameter, gradient)
        scaler.step(optimizer)
        scaler.update()
        assert numpy.array_equal(parameter.detach().numpy(), values[0]) == is_left_out


def test_two_optimizers_are_followed_by_one_step():
    first, second = parameters(drawn(1.0, [(10, 10), (5,)], seed=9))
    optimizers = [torch.optim.SGD([first], lr=0.1), torch.optim.AdamW([second])]
    regularizer = RateRegularizer([first, second], 1e-3).attach(*optimizers)
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
    assert regularizer.steps == 3


def test_bits_are_the_entropy_of_the_codes():
    tensors = drawn(0.6, [(50, 40), (9,)], seed=10)
    codes = numpy.concatenate([numpy.round(t.astype(numpy.float64) / 0.05).ravel() for t in tensors])
    _, counts = numpy.unique(codes, return_counts=True)
    shares = counts / counts.sum()
    regularizer = RateRegularizer(parameters(tensors), 0.0)
    assert regularizer.bits(0.05) == pytest.approx(-(shares * numpy.log2(shares)).sum(), rel=1e-12)
    with pytest.raises(ConfigurationError, match="coarser step"):
        regularizer.bits(1e-9)


def test_pulls_make_the_estimate_and_the_weights_smaller():
    ours = parameters(drawn(1.5, [(50, 40)], seed=11))
    regularizer = RateRegularizer(ours, 1e-3)
    before = regularizer.bits(2**-4)
    for _ in range(50):
        regularizer.step()
    assert regularizer.bits(2**-4) < before - 0.2


def test_the_state_comes_back():
    tensors = drawn(1.0, [(10, 10), (5,)], seed=12)
    groups = [{"params": [p], "weight": w} for p, w in zip(parameters(tensors), (1e-3, 2e-3), strict=True)]
    regularizer = RateRegularizer(groups, epsilon=0.5)
    regularizer.groups[1].weight = 7e-3
    regularizer.step()
    again = RateRegularizer([{"params": [p], "weight": 0.0} for p in parameters(tensors)])
    again.load_state_dict(copy.deepcopy(regularizer.state_dict()))
    assert (again.steps, again.epsilon) == (1, 0.5)
    assert [group.weight for group in again.groups] == [1e-3, 7e-3]
    with pytest.raises(ConfigurationError, match="2 groups"):
        RateRegularizer(parameters(tensors), 0.0).load_state_dict(regularizer.state_dict())


def test_a_step_asks_the_device_for_nothing():
    """Values of fake tensors do not exist, so a step that looked at one would fail."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        parameter = torch.nn.Parameter(torch.randn(10, 10))
        RateRegularizer([parameter], 1e-3).step()


def test_a_step_compiles_to_the_same():
    tensors = drawn(0.9, [(20, 20), (6,)], seed=13)
    eager, compiled = parameters(tensors), parameters(tensors)
    RateRegularizer(eager, 1e-3).step()
    regularizer = RateRegularizer(compiled, 1e-3)
    torch.compile(regularizer.step, backend="aot_eager", fullgraph=True)()
    for ours, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


WEIGHTS = torch.nn.Parameter(torch.ones(3, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: ([], 1.0), "no parameters"),
        (lambda: ([WEIGHTS],), "weight of group 0 is None"),
        (lambda: ([WEIGHTS], -1.0), "weight of group 0 is -1"),
        (lambda: ([WEIGHTS], math.nan), "weight of group 0 is nan"),
        (lambda: ([("w", 3.0)], 1.0), "w is a float"),
        (lambda: ([("w", torch.ones(2, dtype=torch.int32))], 1.0), "`w` is of type torch.int32"),
        (lambda: ([("w", torch.ones(2).to(torch.float8_e5m2))], 1.0), "`w` is of type torch.float8"),
        (lambda: ([("w", torch.ones(2, dtype=torch.complex64))], 1.0), "`w` is of type torch.complex64"),
        (lambda: ([("w", torch.empty(2, device="meta"))], 1.0), "`w` is on the meta device"),
        (lambda: ([("w", torch.eye(2).to_sparse())], 1.0), "`w` is sparse"),
        (lambda: ([{"params": [WEIGHTS]}, WEIGHTS], 1.0), "groups in part"),
        (
            lambda: ([{"params": [WEIGHTS]}, {"params": [("w", WEIGHTS)]}], 1.0),
            "`w` is in groups 0 and 1",
        ),
    ],
)
def test_what_cannot_be_regularised_is_said(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        RateRegularizer(*arguments())


def test_settings_are_checked():
    with pytest.raises(ConfigurationError, match="'huffman'"):
        RateRegularizer([WEIGHTS], 1.0, method="huffman")
    with pytest.raises(ConfigurationError, match="epsilon is 0"):
        RateRegularizer([WEIGHTS], 1.0, epsilon=0.0)


def test_an_optimizer_per_parameter_is_refused():
    ours = parameters(drawn(1.0, [(4, 4), (5,)], seed=14))
    regularizer = RateRegularizer([("a", ours[0]), ("b", ours[1])], 1e-3)
    with pytest.raises(ConfigurationError, match="`b`.*backward pass"):
        regularizer.attach(torch.optim.SGD([ours[0]], lr=0.1))
    optimizer = torch.optim.SGD(ours, lr=0.1)
    regularizer.attach(optimizer)
    with pytest.raises(ConfigurationError, match="attached already"):
        regularizer.attach(optimizer)
