"""The best language model whose code and weights fit into a number of bytes, by the rules of OpenAI's Parameter Golf.

    python parameter_golf.py --data fineweb10B_sp1024 --tokenizer fineweb_1024_bpe.model --seconds 600
    python parameter_golf.py --cap 60000 --width 64 --layers 2 --heads 2 --context 128 --batch 32 --steps 400

The first is the contest: 16,000,000 bytes, shards of tokens, a limit of time. The second takes two or three minutes on a
laptop, on text that is there already: the source of Python's standard library. The rate is part of the loss, with what this
script leaves of the cap as its budget, and what is scored is the model that the file gives back. With --steps a run is that
of its seed.
"""

import argparse
import contextlib
import copy
import json
import math
import pathlib
import sys
import time

import numpy
import torch
import torch.nn.functional as F

import backslash
from backslash.torch import RateRegularizer, load_file

BEGIN, FIRST_BYTE, BYTE_TOKENS = 1, 4, 260  # Ids without a tokenizer: control, then a token for each byte.


class Block(torch.nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = torch.nn.Linear(width, 3 * width, bias=False)
        self.attended = torch.nn.Linear(width, width, bias=False)
        self.up = torch.nn.Linear(width, 3 * width, bias=False)
        self.down = torch.nn.Linear(3 * width, width, bias=False)
        for last in (self.attended, self.down):
            last.weight.data.mul_(0.1)

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        parts = self.attend(norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        query, key, value = rotated(norm(parts[0]), rotation), rotated(norm(parts[1]), rotation), parts[2]
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(norm(x))).square())


class Model(torch.nn.Module):
    """A causal transformer of matrices only: norms have no gains, layers no biases, and the embedding is the head too."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.embedding.weight.data.mul_(0.02)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head_size = width // heads

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        half = torch.arange(self.head_size // 2, device=tokens.device) / (self.head_size // 2)
        angles = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * 10_000.0**-half
        x = norm(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, (angles.cos(), angles.sin()))
        logits = F.linear(norm(x), self.embedding.weight).float()
        return 30 * torch.tanh(logits / 30)


def norm(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:])


def rotated(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    (cos, sin), (first, second) = rotation, x.chunk(2, -1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), -1).to(x.dtype)


def standard_library() -> tuple[list[numpy.ndarray], numpy.ndarray]:
    """Training and validation tokens of Python's own source; every tenth file is held out."""
    paths = sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))
    files = [numpy.frombuffer(path.read_bytes(), numpy.uint8).astype(numpy.uint16) + FIRST_BYTE for path in paths]
    documents = [numpy.concatenate(([numpy.uint16(BEGIN)], file)) for file in files]
    return [numpy.concatenate([d for i, d in enumerate(documents) if i % 10])], numpy.concatenate(documents[::10])


def shards(folder: pathlib.Path, split: str) -> list[numpy.ndarray]:
    """Tokens of `*_{split}_*.bin`: 256 words of header, the third of which is their number, and 16 bits for each."""
    found = []
    for path in sorted(folder.glob(f"*_{split}_*.bin")):
        header = numpy.fromfile(path, "<i4", 256)
        if len(header) < 256 or header[0] != 20240520 or path.stat().st_size != 1024 + 2 * header[2]:
            sys.exit(f"{path} is no shard of tokens: magic number 20240520 and a length of 1024 + 2·tokens would be right")
        found.append(numpy.memmap(path, "<u2", "r", 1024, (int(header[2]),)))
    return found or sys.exit(f"{folder} has no *_{split}_*.bin")


def bytes_of_tokens(tokenizer: str | None) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """By id: bytes, whether a space comes before, and whether that is left out after this token, being none of text."""
    if tokenizer is None:
        is_byte = numpy.arange(BYTE_TOKENS) >= FIRST_BYTE
        return is_byte.astype(numpy.int64), numpy.zeros(BYTE_TOKENS, bool), ~is_byte
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
    ids = range(pieces.vocab_size())
    silent = numpy.array([pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_unused(i) for i in ids])
    texts = ["" if silent[i] else "b" if pieces.is_byte(i) else pieces.id_to_piece(i) for i in ids]
    lengths = numpy.array([len(text.removeprefix("\u2581").encode()) for text in texts])
    return lengths, numpy.array([text.startswith("\u2581") for text in texts]), silent


def nats_of(model: Model, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each target."""
    device = model.embedding.weight.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = model(inputs.long().to(device))
    return F.cross_entropy(logits.flatten(0, 1), targets.long().to(device).flatten(), reduction="none")


@torch.no_grad()
def evaluate(model: Model, tokens: numpy.ndarray, table: tuple, context: int, batch: int) -> tuple[float, float]:
    """Nats per token, and bits per byte, over all tokens but the first: each is predicted once, in rows of `context`."""
    inputs, targets = (torch.from_numpy(part.astype(numpy.int32)) for part in (tokens[:-1], tokens[1:]))
    full = len(targets) // context * context
    rows = zip(*(part[:full].view(-1, context).split(batch) for part in (inputs, targets)), strict=True)
    rest = [(inputs[None, full:], targets[None, full:])] if full < len(targets) else []
    loss = sum(nats_of(model, *row).double().sum().item() for row in (*rows, *rest)) / len(targets)
    lengths, has_space, silent = table
    count = int((lengths[tokens[1:]] + (has_space[tokens[1:]] & ~silent[tokens[:-1]])).sum())
    return loss, loss / math.log(2) * len(targets) / count


def batch_of(tokens: list[numpy.ndarray], context: int, batch: int, random: numpy.random.Generator) -> list[torch.Tensor]:
    """Inputs and targets from anywhere in a shard."""
    sizes = numpy.array([len(shard) for shard in tokens], float)
    shard = tokens[random.choice(len(tokens), p=sizes / sizes.sum())]
    starts = random.integers(len(shard) - context, size=batch)[:, None] + numpy.arange(context)
    return [torch.from_numpy(shard[starts + by].astype(numpy.int32)) for by in (0, 1)]


def train(
    model: Model, tokens: list[numpy.ndarray], budget: int, steps: int, arguments: argparse.Namespace
) -> RateRegularizer:
    """Trains to a budget, for so many steps or until the seconds are over."""
    random = numpy.random.default_rng(arguments.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20, 2 * (1 - step / steps)))
    regularizer = RateRegularizer(model.named_parameters(), method="bits", budget=budget, steps=steps).attach(optimizer)
    begun = time.perf_counter()
    for step in range(steps):
        loss = nats_of(model, *batch_of(tokens, arguments.context, arguments.batch, random)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"step:{step + 1}/{steps} train_loss:{loss.item():.4f} forecast:{regularizer.forecast().bytes:.0f} bytes")
        if arguments.seconds and time.perf_counter() - begun > arguments.seconds:
            print(f"{arguments.seconds} s are over at step {step + 1}")
            break
    return regularizer


def steps_in(
    seconds: float, model: Model, tokens: list[numpy.ndarray], budget: int, arguments: argparse.Namespace
) -> int:
    """Steps for which there is time, by rehearsals of ten, which have a rate for the same share of them as the training."""
    durations = []
    for _ in range(3):
        begun = time.perf_counter()
        with contextlib.redirect_stdout(None):
            train(copy.deepcopy(model), tokens, budget, 10, arguments)
        durations.append(time.perf_counter() - begun)
    return max(10, int(9.5 * seconds / min(durations)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="folder of *_train_*.bin and *_val_*.bin")
    parser.add_argument("--tokenizer", help="SentencePiece model of the shards; without it ids from 4 on are bytes")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("golf"), help="folder of the submission")
    parser.add_argument("--cap", type=int, default=16_000_000, help="most bytes of code and weights")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--steps", type=int, default=2000)
    limits.add_argument("--seconds", type=float, help="of training")
    for name, default in (("width", 512), ("layers", 9), ("heads", 8), ("context", 1024), ("batch", 64), ("seed", 1337)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    if arguments.width % (2 * arguments.heads):
        parser.error(f"--width {arguments.width} is no multiple of twice --heads {arguments.heads}")

    code = pathlib.Path(__file__).stat().st_size
    if code >= arguments.cap:
        sys.exit(f"the code alone has {code} bytes, the cap is {arguments.cap}")
    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = bytes_of_tokens(arguments.tokenizer)
    if arguments.data:
        tokens, validation = shards(arguments.data, "train"), numpy.concatenate(shards(arguments.data, "val"))
    else:
        tokens, validation = standard_library()

    def fresh() -> Model:
        return Model(len(table[0]), arguments.width, arguments.layers, arguments.heads).to(device)

    model = fresh()
    weights = sum(parameter.numel() for parameter in model.parameters())
    # More than a byte per weight buys nothing.
    budget = min(arguments.cap - code, weights)
    artifact = arguments.out / "model.bsl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        steps = steps_in(arguments.seconds, model, tokens, budget, arguments) if arguments.seconds else arguments.steps
        print(f"{weights} weights, {budget} bytes for them, {steps} steps")
        train(model, tokens, budget, steps, arguments).save(artifact, overwrite=True)
    except backslash.BackslashError as error:
        sys.exit(f"no file within the {arguments.cap - code} bytes that {code} bytes of code leave of {arguments.cap}: {error}")
    decoded = fresh()
    decoded.load_state_dict(load_file(artifact, device))
    loss, bits_per_byte = evaluate(decoded, validation, table, arguments.context, arguments.batch)
    total = code + artifact.stat().st_size
    print(f"final_roundtrip val_loss:{loss:.8f} val_bpb:{bits_per_byte:.8f}")
    print(f"Serialized model: {artifact.stat().st_size} bytes\nCode size: {code} bytes\nTotal submission size: {total} bytes")
    if total > arguments.cap:
        sys.exit(f"{total} bytes are above the cap of {arguments.cap}")
    summary = {"val_loss": loss, "val_bpb": bits_per_byte, "bytes_total": total, "bytes_code": code}
    (arguments.out / "submission.json").write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
