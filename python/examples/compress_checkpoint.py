"""Compresses a safetensors checkpoint to so many bits per weight and says what that has cost.

    python compress_checkpoint.py model.safetensors model.bsl --bits-per-weight 3
"""

import argparse

import safetensors.torch
import torch

import backslash
import backslash.torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    parser.add_argument("--bits-per-weight", type=float, default=3.0)
    arguments = parser.parse_args()

    weights = safetensors.torch.load_file(arguments.checkpoint)
    size = backslash.save_file(
        weights,
        arguments.output,
        bits_per_weight=arguments.bits_per_weight,
        progress=lambda done, total, what: print(f"trial {done}: {what}"),
    )
    count = sum(tensor.numel() for tensor in weights.values())
    print(f"{arguments.output}: {size.total} bytes, {8 * size.total / count:.3f} bits per weight")

    decoded = backslash.torch.load_file(arguments.output)
    for report in backslash.inspect(arguments.output).tensors:
        if report.step is None:
            continue
        weight = weights[report.name].float()
        noise = (decoded[report.name] - weight).square().mean() / weight.square().mean()
        decibels = -10 * torch.log10(noise).item()
        print(f"{report.name}: {report.bits_per_weight:.2f} bits per weight, {decibels:.1f} dB")


if __name__ == "__main__":
    main()
