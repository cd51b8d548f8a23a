"""Trains a small model of text for a number of bytes, writes its file, and evaluates what is decoded from it.

    python train_to_budget.py model.bsl --budget 60000 --steps 600

The text is on your machine already: the source of Python's standard library.
"""

import argparse
import pathlib

import torch
import torch.nn.functional as F

from backslash.torch import RateRegularizer, load_file

CONTEXT, WIDTH, BATCH = 16, 64, 128


class Model(torch.nn.Module):
    """Predicts a byte from the sixteen before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(256, WIDTH)
        self.hidden = torch.nn.Linear(CONTEXT * WIDTH, 256)
        self.more = torch.nn.Linear(256, 256)
        self.output = torch.nn.Linear(256, 256)

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.hidden(self.embedding(context).flatten(1)))
        return self.output(F.rms_norm(hidden + F.gelu(self.more(hidden)), (256,)))


def text() -> torch.Tensor:
    sources = sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))
    return torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in sources)), dtype=torch.uint8).long()


def loss_of(model: Model, data: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    windows = data[starts[:, None] + torch.arange(CONTEXT + 1)]
    return F.cross_entropy(model(windows[:, :-1]), windows[:, -1])


@torch.no_grad()
def bits_per_byte(model: Model, data: torch.Tensor) -> float:
    starts = torch.arange(0, len(data) - CONTEXT - 1, 29)[:20_000]
    return (loss_of(model, data, starts) / torch.log(torch.tensor(2.0))).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("--budget", type=int, default=60_000, help="most bytes of the file")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data = text()
    held_out, data = data[:200_000], data[200_000:]
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / arguments.steps)))
    # In the place of a budget: weight=0.1, nats of loss per bit per weight.
    regularizer = RateRegularizer(
        model.named_parameters(), method="bits", budget=arguments.budget, steps=arguments.steps
    ).attach(optimizer)

    for step in range(arguments.steps):
        loss = loss_of(model, data, torch.randint(len(data) - CONTEXT - 1, (BATCH,)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 50 == 49:
            bits = regularizer.bits()
            rate = "no rate yet" if bits is None else f"{bits:.2f} bits per weight"
            print(f"step {step + 1}: loss {loss.item():.3f}, {rate}, file {regularizer.forecast().bytes:.0f} bytes")

    with regularizer.master_weights():
        print(f"weights of the optimizer: {bits_per_byte(model, held_out):.3f} bits per byte of held-out text")
    size = regularizer.save(arguments.output, overwrite=True)
    print(f"{arguments.output}: {size.total} bytes")
    decoded = Model()
    decoded.load_state_dict(load_file(arguments.output))
    print(f"decoded from the file: {bits_per_byte(decoded, held_out):.3f} bits per byte of held-out text")


if __name__ == "__main__":
    main()
