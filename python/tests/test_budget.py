"""Budgets: the controller on a model of training, and trainings that are to end at a number of bytes."""

import math

import pytest
import torch

import backslash
from backslash import ConfigurationError
from backslash.torch import RateRegularizer, load_file
from backslash.torch.bits.budget import AIM, Budget

CODED = 2_000_000
YES = torch.tensor(True)


def simulated(budget, amplitude, fall, steps=600, start=240):
    """Code lengths go to a·λ^(−0.35) with a lag, and lose so many bits for each unit of the time with a rate as weights come to
    rest; the rate falls from half the steps on.

    The controller, its forecasts, and the bytes of the finished file.
    """
    controller = Budget(budget, 20_000, CODED, 0.02, torch.device("cpu"))
    bits, seen, forecasts = 2.0, 2.0, []
    multipliers = {step: min(1.0, 2 * (steps - step) / steps) for step in range(start, steps)}
    fall *= sum(multipliers.values())
    for step, multiplier in multipliers.items():
        rest = 0.85 * amplitude * controller.price().item() ** -0.35
        bits += (rest - bits) * multiplier / 30
        seen = bits - fall * (1 - min(multiplier / 0.25, 1))
        controller.step(torch.tensor(seen, dtype=torch.float64), multiplier, steps - step - 1, YES)
        forecasts.append(controller.forecast())
    return controller, forecasts, 20_000 + seen * CODED / 8


@pytest.mark.parametrize(("amplitude", "fall"), [(0.4, 3.6e-4), (0.62, 2.4e-4), (0.95, 3.6e-4), (0.95, 2.4e-4)])
@pytest.mark.parametrize("budget", [300_000, 500_000, 900_000])
def test_files_end_near_the_aim_whatever_the_model(budget, amplitude, fall):
    _, forecasts, file = simulated(budget, amplitude, fall)
    assert file / budget == pytest.approx(AIM, abs=0.03)
    assert forecasts[len(forecasts) // 2].bytes == pytest.approx(file, rel=0.06)
    assert forecasts[-1].bytes == pytest.approx(file, rel=0.01)
    assert forecasts[-1].deviation < 0.01 * file


def test_a_restored_controller_goes_on_alike():
    first, second = (Budget(400_000, 1_000, CODED, 0.02, torch.device("cpu")) for _ in range(2))
    assert first.forecast().bytes == AIM * 400_000
    bits = torch.tensor(2.5, dtype=torch.float64)
    for step in range(50):
        first.step(bits * 0.99**step, 1.0, 100 - step, YES)
    second.restore(first.state())
    for controller in (first, second):
        controller.step(bits, 0.5, 40, YES)
        state = controller.state()
        # A step that was left out leaves no trace.
        controller.step(0 * bits, 0.5, 39, ~YES)
        assert controller.state() == state
    assert first.state() == second.state() and not math.isnan(first.state()["level"])


def trained(budget, tmp_path, steps=300):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(128, 64), torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    regularizer = RateRegularizer(
        model.named_parameters(), method="bits", budget=budget, steps=steps, start=0.4, rounding_from=0.4
    ).attach(optimizer)
    generator = torch.Generator().manual_seed(1)
    # More to know than there is room for: a distribution of its own for each token.
    shares = torch.randn(128, 128, generator=generator).mul(1.5).softmax(1)
    for _ in range(steps):
        tokens = torch.randint(128, (256,), generator=generator)
        targets = torch.multinomial(shares[tokens], 1, generator=generator).squeeze(1)
        loss = torch.nn.functional.cross_entropy(model(tokens), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return model, regularizer


@pytest.mark.parametrize("budget", [9_000, 16_000])
def test_a_training_ends_near_its_budget_and_its_file_within_it(tmp_path, budget):
    model, regularizer = trained(budget, tmp_path)
    forecast = regularizer.forecast()
    grid = backslash.save_file(
        {name: parameter.detach() for name, parameter in model.named_parameters()},
        tmp_path / "grid.bsl",
        steps=regularizer.learned_steps(),
    )
    assert grid.total == pytest.approx(budget, rel=0.08)
    assert forecast.bytes == pytest.approx(grid.total, rel=0.1) and forecast.budget == budget
    size = regularizer.save(tmp_path / "model.bsl")
    assert 0.97 * budget < size.total <= budget == regularizer.forecast().budget
    model.load_state_dict(load_file(tmp_path / "model.bsl"))


def test_what_does_not_fit_is_said():
    matrix = torch.nn.Parameter(torch.randn(64, 64))
    make = lambda **options: RateRegularizer([("w", matrix)], **{"method": "bits", "steps": 10, "budget": 1000, **options})
    with pytest.raises(ConfigurationError, match="weight and budget are given"):
        make(weight=1.0)
    with pytest.raises(ConfigurationError, match="give their number as steps"):
        make(steps=None, start=0, rounding_from=0)
    with pytest.raises(ConfigurationError, match="budget is 0"):
        make(budget=0)
    with pytest.raises(ConfigurationError, match='method "bits"'):
        make(method="backslash")
    with pytest.raises(ConfigurationError, match="budget of 60 bytes.*about"):
        make(budget=60)
    with pytest.raises(ConfigurationError, match="without a budget"):
        make(weight=1.0, budget=None).forecast()
