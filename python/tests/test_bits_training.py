"""The method "bits" beside optimizers: what the loss sees, what is saved, and how training goes on."""

import copy
import math

import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import backslash
from backslash import ConfigurationError
from backslash.torch import RateRegularizer, load_file
from backslash.torch.bits import passes

STEPS = 30


class Network(torch.nn.Module):
    """Tied embeddings, a convolution, a matrix that is strided and some vectors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = torch.nn.Embedding(64, 32)
        self.convolution = torch.nn.Conv1d(32, 48, 3, padding=1)
        self.back = torch.nn.Parameter(0.1 * torch.randn(48, 32).T)
        self.head = torch.nn.Linear(32, 64)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        hidden = torch.relu(self.convolution(x.transpose(1, 2))).transpose(1, 2)
        return self.head(x + hidden @ self.back.T)


CODED = ["embedding.weight", "convolution.weight", "back"]


def batches(count=STEPS, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        tokens = torch.randint(64, (8, 6), generator=generator)
        yield tokens, (3 * tokens + 1) % 64


def loss_of(model, batch):
    tokens, targets = batch
    return torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def made(weight=0.5, learning_rate=1e-2, **options):
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)
    options = {"method": "bits", "steps": STEPS, "start": 0.2, "rounding_from": 0.5, **options}
    regularizer = RateRegularizer(model.named_parameters(), weight, **options).attach(optimizer)
    return model, optimizer, scheduler, regularizer


def all_numbers(regularizer):
    state = regularizer.state_dict()["bits"]
    return {**state["models"], "levels": state["levels"]}


def train(model, optimizer, scheduler, data, seen=None):
    for batch in data:
        if seen is not None:
            seen.append(detached(model))
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        scheduler.step()


def detached(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def masters(model, regularizer):
    with regularizer.master_weights():
        return detached(model)


def test_the_loss_sees_weights_then_noise_then_multiples_of_the_step():
    model, optimizer, scheduler, regularizer = made()
    for step, batch in enumerate(batches()):
        shown, plain = detached(model), masters(model, regularizer)
        train(model, optimizer, scheduler, [])
        if step < 6:
            assert all(torch.equal(shown[name], plain[name]) for name in shown)
            assert regularizer.bits() is None
        else:
            for name, delta in regularizer.learned_steps().items():
                offset = (shown[name] - plain[name]) / delta
                codes = shown[name] / delta
                assert offset.abs().max() < 0.501 and offset.abs().max() > 0.45
                on_the_grid = (codes - codes.round()).abs().max() < 1e-3
                assert on_the_grid == (step >= 15), step
            others = set(shown) - set(CODED)
            assert all(torch.equal(shown[name], plain[name]) for name in others)
        train(model, optimizer, scheduler, [batch])
    assert set(regularizer.learned_steps()) == set(CODED)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "operations"])
def test_the_file_gives_back_what_the_loss_has_seen(tmp_path, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(passes, "is_plain", lambda *tensors: False)
    model, optimizer, scheduler, regularizer = made()
    train(model, optimizer, scheduler, batches())
    shown = detached(model)
    size = regularizer.save(tmp_path / "model.bsl", {"buffer": torch.arange(3)})
    loaded = load_file(tmp_path / "model.bsl")
    for name in CODED:
        assert torch.equal(loaded[name], shown[name]), name
    assert torch.equal(loaded["buffer"], torch.arange(3))
    assert torch.equal(loaded["head.bias"], shown["head.bias"].bfloat16())
    assert size.total == (tmp_path / "model.bsl").stat().st_size
    # Codes cost about what the models of their tensors say.
    bits = 8 * size.payload / regularizer._bits.count
    assert bits == pytest.approx(regularizer.bits(), rel=0.1)
    assert all(torch.equal(one, shown[name]) for name, one in detached(model).items())
    with pytest.raises(ConfigurationError, match="`back` is among the tensors"):
        regularizer.save(tmp_path / "other.bsl", {"back": model.back})


def test_a_price_makes_files_smaller(tmp_path):
    sizes = []
    for weight in (0.0, 0.3, 3.0):
        model, optimizer, scheduler, regularizer = made(weight)
        train(model, optimizer, scheduler, batches())
        sizes.append(regularizer.save(tmp_path / f"{weight}.bsl").total)
    assert sizes[0] > 1.03 * sizes[1] > 1.1 * sizes[2], sizes


def test_without_a_price_and_steps_so_fine_that_nothing_is_rounded_training_is_plain():
    model, optimizer, scheduler, _ = made(0.0, initial_step=1e-7)
    train(model, optimizer, scheduler, batches())
    plain = Network()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)
    train(plain, optimizer, scheduler, batches())
    for name, value in detached(plain).items():
        torch.testing.assert_close(detached(model)[name], value, rtol=0, atol=2e-4)


def test_master_weights_are_what_training_goes_on_with():
    model, optimizer, scheduler, regularizer = made(start=0)
    train(model, optimizer, scheduler, batches(20))
    shown = detached(model)
    with regularizer.master_weights():
        assert not torch.equal(model.back, shown["back"])
        with regularizer.master_weights():
            assert not torch.equal(model.back, shown["back"])
        loss_of(model, next(batches())).backward()
        with pytest.raises(ConfigurationError, match="leaving them"):
            optimizer.step()
    assert all(torch.equal(one, shown[name]) for name, one in detached(model).items())
    with torch.no_grad(), regularizer.master_weights():
        model.back.fill_(0.25)
    assert torch.equal(masters(model, regularizer)["back"], torch.full((32, 48), 0.25))
    assert len(model.back.unique()) == 1


def test_a_change_of_what_the_loss_sees_is_refused():
    model, optimizer, scheduler, _ = made(start=0)
    train(model, optimizer, scheduler, batches(2))
    with torch.no_grad():
        model.back.mul_(2)
    with pytest.raises(ConfigurationError, match="`back` was changed between steps"):
        train(model, optimizer, scheduler, batches(1))


def test_detach_gives_weights_back():
    model, optimizer, scheduler, regularizer = made()
    train(model, optimizer, scheduler, batches(20))
    plain, before = masters(model, regularizer), copy.deepcopy(regularizer._bits.models.state())
    regularizer.detach()
    assert all(torch.equal(one, plain[name]) for name, one in detached(model).items())
    train(model, optimizer, scheduler, batches(1))
    assert all(torch.equal(value, before[key]) for key, value in regularizer._bits.models.state().items())
    assert regularizer.steps == 20
    regularizer.attach(optimizer)
    assert not torch.equal(masters(model, regularizer)["back"], model.back)


def checkpoint(model, optimizer, scheduler, regularizer):
    with regularizer.master_weights():
        state = [part.state_dict() for part in (model, optimizer, scheduler)]
        return copy.deepcopy([*state, regularizer.state_dict()])


@pytest.mark.parametrize("loaded_after_attaching", [True, False])
@pytest.mark.parametrize("at", [3, 10, 20])
def test_a_resumed_training_is_one_that_was_not_interrupted(at, loaded_after_attaching, tmp_path):
    whole, interrupted = made(rounded_share=0.5), made(rounded_share=0.5)
    data = list(batches())
    train(*whole[:3], data)
    train(*interrupted[:3], data[:at])
    torch.save(checkpoint(*interrupted), tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)

    resumed = made(weight=7.0, rounded_share=0.5, start=0 if loaded_after_attaching else 0.2)
    if loaded_after_attaching:
        resumed[3]._bits.schedule = whole[3]._bits.schedule
    else:
        resumed[3].detach()
    for part, own in zip(resumed, state, strict=True):
        part.load_state_dict(own)
    if not loaded_after_attaching:
        resumed[3].attach(resumed[1])
    train(*resumed[:3], data[at:])
    assert resumed[3].steps == STEPS and resumed[3].bits() == whole[3].bits()
    for name, value in detached(whole[0]).items():
        assert torch.equal(value, detached(resumed[0])[name]), name
    assert resumed[3].learned_steps() == whole[3].learned_steps()


@pytest.mark.parametrize("before", [0, STEPS], ids=["before the rate", "with a rate"])
@pytest.mark.parametrize("at", [3, 20])
def test_a_state_can_be_taken_up_while_weights_are_shown(at, before):
    """As where one call of a library loads weights and states, in whatever order."""
    whole, interrupted, resumed = made(), made(), made()
    data = list(batches())
    train(*whole[:3], data)
    train(*interrupted[:3], data[:at])
    state = checkpoint(*interrupted)
    train(*resumed[:3], data[:before])
    model, optimizer, scheduler, regularizer = resumed
    with regularizer.master_weights():
        for part, own in zip(resumed, state, strict=True):
            part.load_state_dict(own)
        model.load_state_dict(state[0])
        assert all(torch.equal(value, state[0][name]) for name, value in detached(model).items())
    train(model, optimizer, scheduler, data[at:])
    for name, value in detached(whole[0]).items():
        assert torch.equal(value, detached(model)[name]), name


def test_states_that_do_not_fit_are_refused():
    model, optimizer, scheduler, regularizer = made(start=0)
    train(model, optimizer, scheduler, batches(3))
    state = regularizer.state_dict()
    with pytest.raises(ConfigurationError, match="no `bits`"):
        regularizer.load_state_dict({key: value for key, value in state.items() if key != "bits"})
    for part in ("models", "levels", "rounded"):
        bits = {key: value for key, value in state["bits"].items() if key != part}
        with pytest.raises(ConfigurationError, match=f"no `bits.{part}`"):
            regularizer.load_state_dict({**state, "bits": bits})
    bits = {**state["bits"], "levels": state["bits"]["levels"][:-1]}
    with pytest.raises(ConfigurationError, match="levels of 319 rows and columns, .* have 320"):
        regularizer.load_state_dict({**state, "bits": bits})
    with pytest.raises(ConfigurationError, match="method 'bits'"):
        RateRegularizer(model.parameters(), 0.0).load_state_dict(state)
    with pytest.raises(ConfigurationError, match="other names"):
        RateRegularizer(model.parameters(), 0.0, method="bits", start=0, rounding_from=0).load_state_dict(state)
    model.load_state_dict(model.state_dict())  # What the loss sees in the place of the weights.
    with pytest.raises(ConfigurationError, match="save weights in master_weights"):
        regularizer.load_state_dict(state)


def test_gradients_accumulate_and_are_clipped_before_the_rate():
    """Two half batches are one, and the rate comes on top of what was clipped."""
    whole, halves = made(start=0), made(start=0)
    for batch in batches(20):
        for (model, optimizer, _, _), parts in ((whole, 1), (halves, 2)):
            optimizer.zero_grad()
            for inputs, targets in zip(*(part.chunk(parts) for part in batch), strict=True):
                (loss_of(model, (inputs, targets)) / parts).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
            optimizer.step()
    for name, value in masters(whole[0], whole[3]).items():
        torch.testing.assert_close(value, masters(halves[0], halves[3])[name], rtol=0, atol=1e-4)
    # λ·∂R/∂w alone is longer than what clipping leaves.
    assert torch.cat([p.grad.flatten() for p in whole[0].parameters()]).norm() > 2e-2


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_scaler_changes_nothing(fused):
    """Neither for the rate nor for the steps; also where the optimizer unscales by itself."""

    def trained(scale):
        model = Network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        regularizer = RateRegularizer(model.named_parameters(), 1.0, method="bits", start=0, rounding_from=5).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scale)
        for step, batch in enumerate(batches(10)):
            if step == 7 and scale:
                # A step that is left out, and done again.
                before, state = masters(model, regularizer), all_numbers(regularizer)
                optimizer.zero_grad()
                (scaler.scale(loss_of(model, batch)) * math.inf).backward()
                scaler.step(optimizer)
                scaler.update(1024.0)
                assert all(torch.equal(one, before[name]) for name, one in masters(model, regularizer).items())
                after = all_numbers(regularizer)
                assert all(torch.equal(one, state[key]) for key, one in after.items())
            optimizer.zero_grad()
            scaler.scale(loss_of(model, batch)).backward()
            scaler.step(optimizer)
            scaler.update(1024.0)
        return model, regularizer

    (one, first), (other, second) = trained(False), trained(True)
    for name, value in masters(one, first).items():
        torch.testing.assert_close(value, masters(other, second)[name], rtol=0, atol=1e-6)
    for name, step in first.learned_steps().items():
        assert step == pytest.approx(second.learned_steps()[name], rel=1e-5)


def test_two_optimizers_are_one():
    data, results = list(batches(20)), []
    for split in (False, True):
        model = Network()
        parts = [[p] for p in model.parameters()] if split else [list(model.parameters())]
        optimizers = [torch.optim.SGD(part, lr=0.1) for part in parts]
        regularizer = RateRegularizer(model.named_parameters(), 1.0, method="bits", start=2, rounding_from=5)
        regularizer.attach(*optimizers)
        for batch in data:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss_of(model, batch).backward()
            for optimizer in optimizers:
                optimizer.step()
        assert regularizer.steps == 20
        results.append(detached(model))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


@pytest.mark.parametrize("positional", [True, False])
def test_the_rate_comes_after_a_closure(positional):
    """Gradients made within `optimizer.step(closure)` are those at the points, and get that of the rate."""
    plain, closed = made(start=0.1, rounding_from=0.5), made(start=0.1, rounding_from=0.5)
    train(*plain[:3], batches())
    model, optimizer, scheduler, regularizer = closed
    for batch in batches():

        def closure():
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        loss = optimizer.step(closure) if positional else optimizer.step(closure=closure)
        scheduler.step()
        assert loss.requires_grad
    for name, value in masters(plain[0], plain[3]).items():
        assert torch.equal(value, masters(model, regularizer)[name]), name


def test_closures_that_are_evaluated_again_are_refused():
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    RateRegularizer(model.named_parameters(), 0.5, method="bits", steps=STEPS, start=0).attach(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.eye(64)) - torch.eye(64)).square().sum()
        loss.backward()
        return loss

    with pytest.raises(ConfigurationError, match="LBFGS evaluates its closure more than once"):
        optimizer.step(closure)


def test_groups_have_prices_of_their_own():
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    groups = [{"params": [("back", model.back)], "weight": 2.0}, {"params": [("embedding", model.embedding.weight)]}]
    regularizer = RateRegularizer(groups, 1.0, method="bits", start=0, rounding_from=0).attach(optimizer)
    model.back.grad = torch.zeros_like(model.back)
    optimizer.step()
    first = [parameter.grad.clone() for parameter in (model.back, model.embedding.weight)]
    # A tensor without a gradient has that of the rate all the same.
    assert all(gradient.abs().max() > 0 for gradient in first)
    regularizer.groups[0].weight = 4.0
    optimizer.zero_grad()
    optimizer.step()
    changed = [parameter.grad for parameter in (model.back, model.embedding.weight)]
    ratios = [(now.norm() / before.norm()).item() for now, before in zip(changed, first, strict=True)]
    assert ratios == pytest.approx([2.0, 1.0], rel=0.05)


def test_short_types_train_too():
    model = Network().bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="bfloat16.*float32"):
        regularizer = RateRegularizer(model.named_parameters(), 1.0, method="bits", start=0, rounding_from=3)
    regularizer.attach(optimizer)
    for batch in batches(6):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    step = regularizer.learned_steps()["back"]
    codes = model.back.detach().float() / step
    assert model.back.dtype is torch.bfloat16 and (codes - codes.round()).abs().max() < 0.01 * codes.abs().max()


def test_a_step_asks_the_device_for_nothing(monkeypatch):
    class NoWaits(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            assert function not in (
                torch.ops.aten._local_scalar_dense.default,
                torch.ops.aten.is_nonzero.default,
                torch.ops.aten.nonzero.default,
                torch.ops.aten.bincount.default,
            ), function
            return function(*arguments, **(named or {}))

    monkeypatch.setattr(passes, "is_plain", lambda *tensors: False)
    model, optimizer, scheduler, regularizer = made(start=0, rounding_from=3, rounded_share=0.5)
    for batch in batches(6):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        with NoWaits():
            regularizer._before_step(optimizer, (), {})
            regularizer._after_step(optimizer, (), {})
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaits():
        regularizer.bits()


MATRIX = torch.nn.Parameter(torch.ones(64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "start is 0.6, a share of the steps"),
        ({"start": 5}, "rounding_from is 0.6, a share"),
        ({"start": 1.5}, "start is 1.5; a step number"),
        ({"start": -1}, "start is -1; a step number"),
        ({"start": True}, "start is True"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"steps": 10, "rounded_share": 1.5}, "rounded_share is 1.5"),
        ({"start": 0, "rounding_from": 0, "rounded_share": 0.5}, "give their number as steps"),
        ({"steps": 10, "initial_step": 0.0}, "initial_step is 0"),
        ({"steps": 10, "learning_rate": math.nan}, "learning_rate is nan"),
        ({"steps": 10, "weight": -1.0}, "weight of group 0 is -1"),
        ({"steps": 10, "parameters": [torch.nn.Parameter(torch.ones(5000))]}, "codes of none"),
        ({"steps": 10, "parameters": [("w", MATRIX.detach().double())]}, "`w` is of type torch.float64"),
        ({"steps": 10, "parameters": [{"params": [MATRIX]}, {"params": [MATRIX]}]}, "in groups 0 and 1"),
    ],
)
def test_what_does_not_fit_is_said(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        RateRegularizer(**{"parameters": [MATRIX], "weight": 1.0, "method": "bits", **arguments})


def test_what_cannot_be_done_is_said(tmp_path):
    broken = torch.nn.Parameter(torch.full((64, 64), math.nan))
    optimizer = torch.optim.SGD([broken], lr=0.1)
    with pytest.raises(ConfigurationError, match="`w` holds values that are not finite"):
        RateRegularizer([("w", broken)], 1.0, method="bits", start=0, rounding_from=0).attach(optimizer)
    sparse = torch.nn.Embedding(64, 64, sparse=True)
    optimizer = torch.optim.SGD(sparse.parameters(), lr=0.1)
    regularizer = RateRegularizer(sparse.named_parameters(), 1.0, method="bits", start=0, rounding_from=0)
    with pytest.raises(ConfigurationError, match="once its rate has begun"):
        regularizer.save(tmp_path / "model.bsl")
    with pytest.raises(ConfigurationError, match="attach"):
        regularizer.step()
    regularizer.attach(optimizer)
    sparse(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigurationError, match="gradient of parameter `weight` is sparse"):
        optimizer.step()


def test_zeros_begin_with_the_step_of_a_drawn_layer():
    zeros = torch.nn.Parameter(torch.zeros(64, 100))
    optimizer = torch.optim.SGD([zeros], lr=0.1)
    regularizer = RateRegularizer([("w", zeros)], 1.0, method="bits", start=0, rounding_from=0).attach(optimizer)
    assert regularizer.learned_steps()["w"] == pytest.approx(1 / math.sqrt(300))
    optimizer.step()
    assert not zeros.any() and numpy.isfinite(regularizer.bits())


def test_the_learning_rate_of_steps_follows_the_schedule_of_the_optimizer():
    moved = []
    for rates in ([0.1, 0.1], [0.1, 0.01], [0.0, 0.0]):
        parameter = torch.nn.Parameter(0.1 * torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))
        optimizer = torch.optim.SGD([parameter], lr=rates[0])
        regularizer = RateRegularizer([("w", parameter)], 1.0, method="bits", start=0, rounding_from=0).attach(optimizer)
        optimizer.step()
        before = math.log(regularizer.learned_steps()["w"])
        optimizer.param_groups[0]["lr"] = rates[1]
        optimizer.step()
        moved.append(abs(math.log(regularizer.learned_steps()["w"]) - before))
    assert moved[0] == pytest.approx(0.02, rel=0.05) and moved[1] == pytest.approx(0.002, rel=0.05)
    assert moved[2] == 0
    # A warm-up that a scheduler makes is known from the start.
    parameter = torch.nn.Parameter(torch.randn(64, 64))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 10)
    regularizer = RateRegularizer([("w", parameter)], 1.0, method="bits", start=0, rounding_from=0).attach(optimizer)
    before = math.log(regularizer.learned_steps()["w"])
    optimizer.step()
    assert abs(math.log(regularizer.learned_steps()["w"]) - before) == pytest.approx(0.002, rel=0.01)
