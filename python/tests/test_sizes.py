"""Sizes of files that are not written are those of files that are."""

import numpy
import pytest
import torch

import backslash


def tensors():
    random = numpy.random.default_rng(4)
    return {
        "a.weight": (0.1 * random.standard_t(3, size=(256, 512))).astype(numpy.float32),
        "b.weight": random.normal(size=(512, 256)).astype(numpy.float16),
        "b.bias": random.normal(size=512).astype(numpy.float32),
        "counts": numpy.arange(300),
    }


@pytest.mark.parametrize("effort", ["smallest", "fast"])
@pytest.mark.parametrize("steps", [None, 0.2, {"a.weight": 0.05, "b.weight": 0.5}])
def test_exact_sizes_are_those_of_files(tmp_path, effort, steps):
    metadata = {"note": "some text " * 20}
    written = backslash.save_file(tensors(), tmp_path / "m.bsl", steps=steps, effort=effort, metadata=metadata)
    assert backslash.exact_size(tensors(), steps=steps, effort=effort, metadata=metadata) == written
    assert written.total == (tmp_path / "m.bsl").stat().st_size


@pytest.mark.parametrize("steps", [None, 0.1, 1.5])
def test_estimates_are_close(tmp_path, steps):
    written = backslash.save_file(tensors(), tmp_path / "m.bsl", steps=steps)
    assert abs(backslash.estimated_size(tensors(), steps=steps) / written.total - 1) < 0.02


def test_estimates_of_more_than_a_sample_are_close(tmp_path):
    generator = torch.Generator().manual_seed(0)
    many = {f"layer.{index}": torch.randn(1024, 512, generator=generator) ** 3 * (1 + index) for index in range(6)}
    written = backslash.save_file(many, tmp_path / "m.bsl", steps=0.3)
    assert abs(backslash.estimated_size(many, steps=0.3) / written.total - 1) < 0.02


@pytest.mark.parametrize("size", [backslash.exact_size, backslash.estimated_size])
def test_what_cannot_be_sized_is_refused(size):
    with pytest.raises(backslash.ConfigurationError, match="must be a positive number"):
        size(tensors(), steps=-1.0)
    with pytest.raises(backslash.InvalidTensorError, match="is not finite|nan|NaN"):
        size({"w": numpy.full((64, 64), numpy.nan, dtype=numpy.float32)})


def test_steps_by_name_are_checked():
    with pytest.raises(backslash.InvalidTensorError, match="not among the tensors"):
        backslash.exact_size(tensors(), steps={"c": 1.0})
    with pytest.raises(backslash.InvalidTensorError, match="b.weight"):
        backslash.exact_size(tensors(), steps={"a.weight": 1.0})
    with pytest.raises(backslash.ConfigurationError, match="effort is 'slow'"):
        backslash.exact_size(tensors(), effort="slow")


def test_progress_is_told_and_can_stop():
    calls = []
    backslash.exact_size(tensors(), progress=lambda *told: calls.append(told))
    assert calls[0] == (0, 4, "a.weight") and calls[-1] == (4, 4, "coding")

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backslash.exact_size(tensors(), progress=stop)
