"""What the regulariser adds to a training step: a decoder of 17 M parameters, plain and with each method, in turn.

    python regularizer_overhead.py [--rounds 20] [--tokens 8192] [--threads N]

Each round takes a step of every training, in an order that changes. Printed are the median step of each, its ratio to
the plain one, round by round, and the processor time of the regulariser's own hooks over that of a plain step. Goals on a CPU are below
2 % for "backslash" and below 4 % for "bits", while weights have noise and while they are rounded.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from backslash.torch import RateRegularizer

VOCABULARY, WIDTH, LAYERS, HEADS, KV_HEADS, CONTEXT = 1024, 512, 9, 8, 4, 1024


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        narrow = WIDTH * KV_HEADS // HEADS
        linear = lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=False)
        self.query, self.key, self.value = linear(WIDTH, WIDTH), linear(WIDTH, narrow), linear(WIDTH, narrow)
        self.mix, self.up, self.down = linear(WIDTH, WIDTH), linear(WIDTH, 2 * WIDTH), linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        seen = F.rms_norm(x, (WIDTH,))
        heads = lambda y, count: y.unflatten(-1, (count, -1)).transpose(1, 2)
        query, key, value = heads(self.query(seen), HEADS), heads(self.key(seen), KV_HEADS), heads(self.value(seen), KV_HEADS)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(F.rms_norm(x, (WIDTH,)))).square())


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens):
        x = F.rms_norm(self.embedding(tokens), (WIDTH,))
        for layer in self.layers:
            x = layer(x)
        return F.rms_norm(x, (WIDTH,)) @ self.embedding.weight.T


class Training:
    """One model with its optimizer; the regulariser's hooks are timed."""

    def __init__(self, **options):
        torch.manual_seed(0)
        self.model = Decoder()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.hooks = []
        if options:
            regularizer = RateRegularizer(self.model.named_parameters(), **options)
            for name in ("_before_step", "_after_step"):
                setattr(regularizer, name, self.timed(getattr(regularizer, name)))
            regularizer.attach(self.optimizer)

    def timed(self, hook):
        def measured(*arguments):
            start = time.process_time()
            hook(*arguments)
            self.hooks[-1] += time.process_time() - start

        return measured

    def step(self, tokens):
        """Seconds of a step, and those of the processor."""
        self.hooks.append(0.0)
        start = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad()
        logits = self.model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        self.optimizer.step()
        return time.perf_counter() - start[0], time.process_time() - start[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    forever = 1 << 40
    trainings = {
        "plain": Training(),
        "backslash": Training(weight=1e-6),
        "bits, noise": Training(weight=0.1, method="bits", start=0, rounding_from=forever),
        "bits, rounded": Training(weight=0.1, method="bits", start=0, rounding_from=0),
    }
    count = sum(parameter.numel() for parameter in trainings["plain"].model.parameters())
    context = min(CONTEXT, arguments.tokens)
    rows = arguments.tokens // context
    print(f"{count} parameters, {rows * context} tokens a step, {torch.get_num_threads()} threads")
    times = {name: [] for name in trainings}
    names = list(trainings)
    # The first round makes the optimizers' state, and is not counted.
    for number in range(arguments.rounds + 1):
        tokens = torch.randint(VOCABULARY, (rows, context + 1))
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = trainings[name].step(tokens)
            if number > 0:
                times[name].append(seconds)
    plain = times["plain"]
    processor = statistics.median(seconds for _, seconds in plain)
    for name, measured in times.items():
        ratio = statistics.median(one / other for (one, _), (other, _) in zip(measured, plain, strict=True))
        step = statistics.median(seconds for seconds, _ in measured)
        own = statistics.median(trainings[name].hooks[1:])
        print(
            f"{name:14} step {step:.3f} s, {100 * (ratio - 1):+.2f} %; "
            f"hooks {own:.4f} s of processor time, {100 * own / processor:.2f} % of a plain step's"
        )


if __name__ == "__main__":
    main()
