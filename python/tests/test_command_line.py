"""Files written from Python are those of the command line, byte for byte."""

import subprocess

import numpy
import pytest
import safetensors.torch
import torch

from program import PROGRAM, needs_program

import backslash
import backslash.torch

pytestmark = needs_program


def tensors(dtype):
    generator = torch.Generator().manual_seed(7)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=generator)).to(dtype)

    return {
        "embedding.weight": normal(300, 64),
        "layer.0.weight": normal(128, 64, scale=0.02) ** 3,
        "layer.0.bias": normal(128),
        "layer.1.weight": normal(64, 128, scale=0.3),
        "convolution.weight": normal(32, 8, 3, 3),
        "narrow.weight": normal(3, 2000),
        "scale": normal(),
        "zeros.weight": torch.zeros(64, 64, dtype=dtype),
        "position_ids": torch.arange(512),
        "mask": torch.tensor([True, False]),
        "double": torch.linspace(0, 1, 5, dtype=torch.float64),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ([], {}),
        (["--step", "0.3"], {"steps": 0.3}),
        (["--effort", "fast"], {"effort": "fast"}),
        (["--budget", "20000"], {"budget": 20_000}),
        (["--bits-per-weight", "2.5"], {"bits_per_weight": 2.5}),
        (["--budget", "20000", "--effort", "fast"], {"budget": 20_000, "effort": "fast"}),
    ],
)
def test_the_same_tensors_make_the_same_file(tmp_path, dtype, flags, arguments):
    given = tensors(dtype)
    source, theirs, ours = tmp_path / "m.safetensors", tmp_path / "c.bsl", tmp_path / "p.bsl"
    safetensors.torch.save_file(given, source)
    subprocess.run([PROGRAM, "compress", source, "-o", theirs, *flags], check=True, capture_output=True)
    backslash.save_file(given, ours, **arguments)
    assert ours.read_bytes() == theirs.read_bytes()


def test_both_decode_to_the_same_weights(tmp_path):
    ours, decoded = tmp_path / "p.bsl", tmp_path / "d.safetensors"
    backslash.save_file(tensors(torch.float32), ours)
    subprocess.run([PROGRAM, "decompress", ours, "-o", decoded], check=True, capture_output=True)
    expected, loaded = safetensors.torch.load_file(decoded), backslash.torch.load_file(ours)
    assert expected.keys() == loaded.keys()
    for name, tensor in loaded.items():
        assert numpy.array_equal(tensor.double().numpy(), expected[name].double().numpy()), name
    verified = subprocess.run([PROGRAM, "verify", ours], check=True, capture_output=True, text=True)
    assert "canonical" in verified.stdout or verified.returncode == 0
