"""The passes of the rate in bits, and a training's course, against those of the crates."""

import pathlib

import numpy
import pytest
import torch

import backslash
from backslash.torch import RateRegularizer
from backslash.torch.bits import passes, reference
from backslash.torch.bits.block import Block, is_coded
from backslash.torch.bits.lines import Lines
from backslash.torch.bits.models import CLASSES, Models
from backslash.torch.bits.noise import noise_key

ROWS, COLUMNS = 37, 70
WHOLE = Block(0, ROWS, ROWS, 0, COLUMNS, COLUMNS, is_split=False)
PART = Block(5, 20, ROWS, 11, 50, COLUMNS, is_split=True)
MODELS = [(0.05, 0.4, 0.02, 0.07), (0.01, -1.5, 0.003, 0.2), (0.5, 0.0, 0.1, 0.1), (0.002, 3.0, 0.01, 0.9)]


def weights(block=WHOLE, seed=0):
    """Heavy tails, rows and columns of different scale, zeros, and one weight that is far from all others."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(ROWS, COLUMNS, generator=generator) ** 3 * 0.03
    whole *= torch.linspace(0.2, 2, ROWS)[:, None] * torch.linspace(3, 0.5, COLUMNS)
    whole[:, 7] = 0
    whole[9, 13] = -30.0
    rows = slice(block.first_row, block.first_row + block.rows)
    return whole[rows, block.first_column : block.first_column + block.columns].contiguous()


def models_of(step, logit, narrow, wide):
    models = Models(1, torch.device("cpu"))
    models.values[0] = torch.tensor([step, narrow, narrow, wide], dtype=torch.float64).log()
    models.values[0, 1] = logit
    return models


@pytest.mark.parametrize("block", [WHOLE, PART], ids=["whole", "part"])
@pytest.mark.parametrize("share", [None, 0.0, 0.4, 1.0])
def test_points_are_those_of_the_crate_to_the_last_bit(block, share):
    step, key = torch.tensor(0.037), noise_key(-7, 123456789, 42)
    results = []
    for plain in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not plain:
                patch.setattr(passes, "is_plain", lambda *tensors: False)
            points, masters = weights(block), torch.empty(block.rows, block.columns)
            lines = passes.quantise(points, masters, passes.Quantiser(step, share, key), block)
            assert torch.equal(masters, weights(block)) and (lines is None) == (share is None)
            results.append((points, *(lines or ())[:2]))
    for compiled, operations in zip(*results, strict=True):
        assert torch.equal(compiled, operations)
    if share != 0.0:
        assert not torch.equal(results[0][0], weights(block))


def test_noise_depends_on_the_place_in_the_whole():
    step, key = torch.tensor(0.1), noise_key(1, 2, 3)
    whole, part = (reference.with_noise(weights(block), step, key, block) for block in (WHOLE, PART))
    assert torch.equal(whole[5:25, 11:61], part)
    noise = (whole - weights()) / step
    assert noise.abs().max() <= 0.5001 and noise.var().item() == pytest.approx(1 / 12, rel=0.1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rounds", [False, True])
def test_bits_and_gradients_are_those_of_the_crate(model, rounds):
    models = models_of(*model)
    steps, price = models.steps(), torch.tensor(0.003)
    masters, key = weights(), noise_key(1, 2, 3)
    levels, largest, points = None, 0.0, reference.with_noise(masters, steps[0], key, WHOLE)
    if rounds:
        points, rows, columns = reference.rounded(masters, steps[0], 1.0, key, WHOLE)
        lines, largest = Lines([WHOLE], [1], masters.device), (rows.max() + 1).item()
        lines.put(0, rows, columns)
        lines.follow(lines.of_split(), torch.tensor([True]))
        levels = lines.levels(0)
        assert all(len(level.unique()) > 10 for level in levels)
    before = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(5)) * 1e-2
    model = passes.Model(0, models.components(CLASSES if rounds else 1), steps, models.values)
    results = []
    for plain in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not plain:
                patch.setattr(passes, "is_plain", lambda *tensors: False)
                # More than one piece.
                patch.setattr(reference, "_PIECE", 5 * COLUMNS)
            seen, gradient = points.clone(), before.clone()
            sums = passes.add_rate(masters, seen, gradient, price, model, WHOLE, levels, largest)
            assert torch.equal(seen, masters)
            results.append((sums, gradient))
    (compiled, gradient), (operations, other) = results
    # Logarithms and exponentials of float32 differ in their last bits; derivatives are sums of terms of both signs.
    assert operations[0].item() == pytest.approx(compiled[0].item(), rel=2e-6)
    torch.testing.assert_close(operations, compiled, rtol=2e-5, atol=2e-6 * compiled[0].item())
    torch.testing.assert_close(other, gradient, rtol=1e-5, atol=2e-6 * (gradient - before).abs().max().item())
    assert (gradient - before).abs().max() > 1e-3


def test_a_file_has_codes_of_what_the_crate_says(tmp_path):
    for shape in [(), (5000,), (16, 64), (15, 100), (16, 63), (64, 16), (64, 15), (300, 15), (2, 2048), (4, 4, 70), (0, 5)]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bsl"
        backslash.save_file({"w": numpy.ones(shape, numpy.float32)}, path)
        (report,) = backslash.inspect(path).tensors
        assert is_coded(shape) == (report.step is not None), shape


def drawn(shape, seed):
    index = numpy.arange(numpy.prod(shape), dtype=numpy.int64)
    uniform = (index * 2_654_435_761 + 97 * seed) % 1009 / 1009 - 0.5
    return torch.from_numpy((2 * uniform**3).astype(numpy.float32)).reshape(shape)


def course():
    """Numbers after each step of the training that the crate has a test of, as that test lists them."""
    shapes = {"a": (48, 40), "v": (8,), "w": (64, 64)}
    ours = {name: torch.nn.Parameter(drawn(shape, 1 + at)) for at, (name, shape) in enumerate(shapes.items())}
    targets = [drawn(shape, 11 + at) for at, shape in enumerate(shapes.values())]
    optimizer = torch.optim.SGD(ours.values(), lr=1.0)
    regularizer = RateRegularizer(
        ours.items(), 0.3, method="bits", steps=20, start=0.25, rounding_from=0.5, rounded_share=0.6, seed=1337
    ).attach(optimizer)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 1.0 if step < 12 else 0.5
        for parameter, target in zip(ours.values(), targets, strict=True):
            parameter.grad = 0.02 * (parameter.detach() - target)
        bits = regularizer.bits()
        optimizer.step()
        if bits is not None:
            with regularizer.master_weights():
                magnitude = sum(p.detach().double().abs().sum().item() for p in ours.values())
            yield [step, bits, *regularizer._bits.models.values.flatten().tolist(), magnitude]


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "operations"])
def test_the_course_of_a_training_is_that_of_the_crate(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(passes, "is_plain", lambda *tensors: False)
    text = (pathlib.Path(__file__).parent / "trajectory_of_bits.txt").read_text()
    expected = [[float(number) for number in line.split()] for line in text.splitlines()]
    numpy.testing.assert_allclose(list(course()), expected, rtol=0, atol=2e-6 * max(map(max, expected)))
