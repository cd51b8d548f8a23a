"""The example in the manner of Parameter Golf: bytes are those of the files, and the score is that of the decoded file."""

import argparse
import importlib.util
import json
import math
import pathlib
import re
import sys

import numpy
import pytest
import torch

from backslash.torch import load_file

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "parameter_golf.py"
SMALL = ["--width", "32", "--layers", "1", "--heads", "2", "--context", "192", "--batch", "4", "--steps", "50"]
CAP = SCRIPT.stat().st_size + 11_000


@pytest.fixture
def golf(monkeypatch):
    """The script as a module, whose `run` takes its arguments."""
    specification = importlib.util.spec_from_file_location("parameter_golf", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *SMALL, *map(str, arguments)])
        module.main()

    module.run = run
    yield module
    torch.use_deterministic_algorithms(False)


@torch.no_grad()
def nats(model, tokens, context):
    """Of all tokens but the first, by probabilities in double precision, row by row."""
    total = 0.0
    for start in range(0, len(tokens) - 1, context):
        row = torch.tensor(tokens[start : start + context + 1].tolist())
        chances = model(row[None, :-1])[0].double().softmax(-1)
        total -= chances[torch.arange(len(row) - 1), row[1:]].log().sum().item()
    return total


def printed(pattern, text):
    (found,) = re.findall(pattern, text)
    return float(found)


def test_a_submission_is_scored_by_what_its_file_gives_back(golf, tmp_path, capsys):
    golf.run("--out", tmp_path, "--cap", CAP)
    text = capsys.readouterr().out
    artifact = (tmp_path / "model.bsl").stat().st_size
    code = SCRIPT.stat().st_size
    assert printed(r"Serialized model: (\d+) bytes", text) == artifact
    assert printed(r"Code size: (\d+) bytes", text) == code
    assert printed(r"Total submission size: (\d+) bytes", text) == artifact + code
    # Of 18,560 weights that would take a byte each, and not much less than there is room for.
    assert 0.9 * 11_000 < artifact <= 11_000

    model = golf.Model(260, 32, 1, 2)
    model.load_state_dict(load_file(tmp_path / "model.bsl"))
    files = [path.read_bytes() for path in sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))][::10]
    tokens = numpy.array([token for file in files for token in (1, *(4 + byte for byte in file))])
    expected = nats(model, tokens, 192)
    count = sum(map(len, files))
    assert printed(r"val_loss:([\d.]+)", text) == pytest.approx(expected / (len(tokens) - 1), rel=1e-5)
    assert printed(r"val_bpb:([\d.]+)", text) == pytest.approx(expected / math.log(2) / count, rel=1e-5)
    # It has learned something: a byte that is drawn has eight bits.
    assert expected / math.log(2) / count < 5.5
    summary = json.loads((tmp_path / "submission.json").read_text())
    assert (summary["bytes_total"], summary["bytes_code"]) == (artifact + code, code)
    assert summary["val_bpb"] == pytest.approx(printed(r"val_bpb:([\d.]+)", text), abs=1e-8)

    golf.run("--out", tmp_path / "again", "--cap", CAP)
    assert (tmp_path / "again" / "model.bsl").read_bytes() == (tmp_path / "model.bsl").read_bytes()


def write_shard(path, tokens):
    header = numpy.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + numpy.array(tokens, "<u2").tobytes())


def test_bytes_are_those_of_the_text_by_any_tokenizer(golf, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed: pip install sentencepiece")
    text = SCRIPT.read_text() + " Größe λ  tab\t."
    source = tmp_path / "text.txt"
    source.write_text(text)
    sentencepiece.SentencePieceTrainer.train(
        input=str(source), model_prefix=str(tmp_path / "tokenizer"), vocab_size=400, model_type="bpe", byte_fallback=True,
        add_dummy_prefix=False, pad_id=0, bos_id=1, eos_id=2, unk_id=3, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    documents = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    tokens = [token for document in documents for token in (1, *tokenizer.encode(document))]
    model = golf.Model(tokenizer.vocab_size(), 32, 1, 2)
    table = golf.bytes_of_tokens(str(tmp_path / "tokenizer.model"))
    loss, bits_per_byte = golf.evaluate(model, numpy.array(tokens, numpy.uint16), table, 64, 4)
    expected = nats(model, numpy.array(tokens), 64)
    count = sum(len(document.encode()) for document in documents)
    assert loss == pytest.approx(expected / (len(tokens) - 1), rel=1e-5)
    assert bits_per_byte == pytest.approx(expected / math.log(2) / count, rel=1e-5)


def test_shards_are_trained_on(golf, tmp_path, capsys):
    random = numpy.random.default_rng(0)
    train, validation = (numpy.concatenate(([1], random.integers(4, 8, size))) for size in (3000, 1000))
    for index, part in enumerate(numpy.array_split(train, 2)):
        write_shard(tmp_path / f"drawn_train_{index:06}.bin", part)
    write_shard(tmp_path / "drawn_val_000000.bin", validation)
    golf.run("--out", tmp_path / "out", "--cap", CAP, "--data", tmp_path, "--steps", 150)
    # Four bytes that are drawn have two bits each.
    assert printed(r"val_bpb:([\d.]+)", capsys.readouterr().out) == pytest.approx(2.0, abs=0.05)

    (tmp_path / "drawn_train_000001.bin").write_bytes(bytes(2000))
    with pytest.raises(SystemExit, match=r"drawn_train_000001.bin is no shard of tokens"):
        golf.run("--data", tmp_path)
    with pytest.raises(SystemExit, match=r"has no \*_train_\*.bin"):
        golf.run("--data", tmp_path / "out")


def test_what_does_not_fit_is_said(golf, tmp_path):
    code = SCRIPT.stat().st_size
    with pytest.raises(SystemExit, match=f"the code alone has {code} bytes, the cap is {code}"):
        golf.run("--cap", code)
    with pytest.raises(SystemExit, match="no file within the 100 bytes"):
        golf.run("--out", tmp_path, "--cap", code + 100, "--steps", 5)
    assert not (tmp_path / "submission.json").exists()
