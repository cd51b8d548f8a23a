"""Models of `transformers` to folders with one `.bsl` file and back."""

import json
import subprocess

import numpy
import pytest
import torch

from program import PROGRAM, needs_program

import backslash
import backslash.torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install './python[transformers]'")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402

from backslash.transformers import Calibration, calibrate, compress_model, from_backslash  # noqa: E402

WORDS = [f"w{index}" for index in range(60)]
TEXTS = [" ".join(numpy.random.default_rng(seed).choice(WORDS, 400)) for seed in range(4)]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks of this size gain nothing from more, and wait for one another where other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tokenizer():
    special = ["<eos>", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="<eos>"
    )


def scaled(model):
    """Weights large enough that predictions differ."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.02) + (parameter.dim() == 1))
    return model.eval()


def llama(tied=True, **settings):
    config = transformers.LlamaConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
        max_position_embeddings=32, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=0, **settings,
    )  # fmt: skip
    return scaled(transformers.LlamaForCausalLM(config))


def gpt2():
    config = transformers.GPT2Config(
        n_embd=48, n_layer=1, n_head=4, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return scaled(transformers.GPT2LMHeadModel(config))


def classifier():
    config = transformers.BertConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, vocab_size=64,
        max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    return scaled(transformers.BertForSequenceClassification(config))


def rows_of(tokenizer, texts, length, tokens):
    ids = []
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"] + [0]
    return torch.tensor(ids[: tokens // length * length]).view(-1, length)


def test_moments_are_those_of_what_layers_read(tokenizer):
    model = llama()
    calibration = calibrate(model, tokenizer, TEXTS, tokens=640)
    rows = rows_of(tokenizer, TEXTS, 32, 640)
    with torch.no_grad():
        output = model(input_ids=rows, output_hidden_states=True)
        read = model.model.layers[0].input_layernorm(output.hidden_states[0])

    def moments(values):
        values = values.flatten(0, 1).double()
        return (values.T @ values / len(values)).numpy()

    index = json.loads(calibration.index)
    attention = "model.layers.0.self_attn"
    shared = {index["inputs"][f"{attention}.{name}_proj.weight"] for name in "qkv"}
    assert shared == {f"{attention}.q_proj.weight"}
    found = calibration.tensors[f"moments/{attention}.q_proj.weight"]
    numpy.testing.assert_allclose(found, moments(read), rtol=1e-4, atol=1e-5)
    # The head reads the last hidden state, and is the embedding.
    head = "model.embed_tokens.weight"
    numpy.testing.assert_allclose(
        calibration.tensors[f"moments/{head}"], moments(output.hidden_states[-1]), rtol=1e-4, atol=1e-5
    )
    assert index["tied"] == [head] and index["inputs_first"] == []
    assert index["tokens"] == 640 and set(index["samples"].values()) == {640}


@pytest.mark.parametrize("make", [llama, gpt2, classifier])
def test_noise_costs_what_the_sensitivity_says(tokenizer, make):
    model = make()
    texts = TEXTS if make is not classifier else [" ".join(text.split()[:28]) for text in TEXTS] * 30
    draws = [calibrate(model, tokenizer, texts, tokens=960, seed=seed) for seed in range(16)]
    if make is classifier:
        rows = torch.tensor([tokenizer(text)["input_ids"] for text in texts[:4]])
    else:
        rows = rows_of(tokenizer, texts, 32, 960)
    parameters = {name: weight for name, weight in model.named_parameters() if weight.dim() == 2}
    names = [name for name in parameters if "v_proj" in name or "c_fc" in name or "intermediate" in name or "classifier" in name]
    with torch.no_grad():
        before = model(input_ids=rows).logits.double().log_softmax(-1)
        for name in names:
            weight = parameters[name]
            rows_mean = numpy.mean([draw.tensors[f"sensitivity/{name}"] for draw in draws], 0)
            kept, deviation, measured = weight.clone(), 0.004, []
            expected = 0.5 * rows_mean.sum() * weight.shape[1] * deviation**2
            for _ in range(48):
                weight.copy_(kept + deviation * torch.randn_like(kept).sign())
                after = model(input_ids=rows).logits.double().log_softmax(-1)
                measured.append((before.exp() * (before - after)).sum(-1).mean().item())
            weight.copy_(kept)
            assert 0.7 < numpy.mean(measured) / expected < 1.4, name


def test_a_model_is_left_as_it_was(tokenizer):
    model = llama().train()
    model.model.norm.eval()
    model.model.embed_tokens.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calibrate(model, tokenizer, TEXTS, tokens=64)
    assert model.training and model.model.layers[0].training and not model.model.norm.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.model.embed_tokens.weight.requires_grad and model.model.norm.weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("make", [llama, lambda: llama(tied=False), gpt2, classifier])
def test_a_folder_is_the_same_model_with_decoded_weights(tokenizer, tmp_path, make):
    model, path = make(), tmp_path / "small"
    if hasattr(model, "generation_config") and model.generation_config is not None:
        model.generation_config.max_new_tokens = 7
    split = compress_model(model, tokenizer, TEXTS, path, bits_per_weight=4, calibration_tokens=640)
    size = (path / "model.bsl").stat().st_size
    stored = backslash.torch.load_file(path / "model.bsl")
    parameters = sum(tensor.numel() for tensor in stored.values() if tensor.is_floating_point())
    assert parameters == sum(parameter.numel() for parameter in model.parameters())
    assert split.total == size and 0.95 * parameters / 2 < size <= parameters / 2
    loaded = from_backslash(path)
    assert type(loaded) is type(model) and not loaded.training
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, stored[name].to(parameter.dtype)), name
    rows = rows_of(tokenizer, TEXTS, 32, 320)
    with torch.no_grad():
        assert (model(input_ids=rows).logits - loaded(input_ids=rows).logits).abs().max() < 2
    if model.can_generate():
        assert loaded.generation_config.max_new_tokens == 7
    again = transformers.AutoTokenizer.from_pretrained(path)
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["small"]


def divergence(model, other, rows):
    with torch.no_grad():
        before = model(input_ids=rows).logits.double().log_softmax(-1)
        after = other(input_ids=rows).logits.double().log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1).mean().item()


def test_texts_make_a_better_file_of_the_same_size(tokenizer, tmp_path):
    model = llama()
    rows = rows_of(tokenizer, TEXTS[2:], 32, 640)
    with_texts, without, larger = tmp_path / "with", tmp_path / "without", tmp_path / "larger"
    compress_model(model, tokenizer, TEXTS[:2], with_texts, bits_per_weight=3)
    compress_model(model, tokenizer, None, without, bits_per_weight=3)
    compress_model(model, tokenizer, TEXTS[:2], larger, bits_per_weight=5)
    found = [divergence(model, from_backslash(path), rows) for path in (larger, with_texts, without)]
    assert found == sorted(found)
    assert found[0] < 0.5 * found[1]


def test_bfloat16_stays_bfloat16(tokenizer, tmp_path):
    model = llama().to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    compress_model(model, tokenizer, TEXTS, tmp_path / "small", bits_per_weight=6, calibration_tokens=320)
    assert from_backslash(tmp_path / "small").dtype == torch.bfloat16
    assert from_backslash(tmp_path / "small", dtype=torch.float32).dtype == torch.float32


def test_a_calibration_serves_for_any_size(tokenizer, tmp_path):
    model = llama()
    first, second = tmp_path / "first", tmp_path / "second"
    compress_model(model, tokenizer, TEXTS, first, budget=18_000, keep_calibration=True, calibration_tokens=320)
    kept = Calibration.load(first / "calibration.safetensors")
    compress_model(model, tokenizer, kept, second, budget=18_000)
    assert (first / "model.bsl").read_bytes() == (second / "model.bsl").read_bytes()
    assert not (second / "calibration.safetensors").exists()
    compress_model(model, tokenizer, kept, second, budget=15_000, overwrite=True)
    assert 14_000 < (second / "model.bsl").stat().st_size <= 15_000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first", "second"]


@needs_program
@pytest.mark.parametrize("make", [llama, gpt2, classifier])
@pytest.mark.parametrize("rung", ["watersic-rate", "gptq", "rtn"])
def test_the_command_line_makes_the_same_file(tokenizer, tmp_path, make, rung):
    model, path, full = make(), tmp_path / "small", tmp_path / "full"
    compress_model(
        model, tokenizer, TEXTS, path, bits_per_weight=3.5, rung=rung, calibration_tokens=320, keep_calibration=True
    )
    model.save_pretrained(full)
    theirs = tmp_path / "theirs.bsl"
    calibration = path / "calibration.safetensors"
    command = [PROGRAM, "compress", full, "--calibration", calibration, "--bits-per-weight", "3.5", "--rung", rung, "-o", theirs]
    subprocess.run(command, check=True, capture_output=True)
    assert theirs.read_bytes() == (path / "model.bsl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no size is given"),
        ({"budget": 1000, "bits_per_weight": 2}, "budget and bits_per_weight are given"),
        ({"bits_per_weight": 0}, "must be a positive number"),
        ({"bits_per_weight": 3, "rung": "best"}, "best"),
        ({"bits_per_weight": 3, "effort": "none"}, "effort is 'none'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tokenizer, tmp_path, arguments, message):
    with pytest.raises(backslash.ConfigurationError, match=message):
        compress_model(llama(), tokenizer, TEXTS, tmp_path / "small", calibration_tokens=64, **arguments)
    assert not list(tmp_path.iterdir())


def test_models_and_texts_that_do_not_serve_are_refused(tokenizer, tmp_path):
    for texts in ([], [""], ""):
        with pytest.raises(backslash.ConfigurationError, match="have no tokens"):
            calibrate(llama(), tokenizer, texts)
    with pytest.raises(backslash.ConfigurationError, match="LlamaModel predicts nothing"):
        calibrate(llama().model, tokenizer, TEXTS)
    both = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=64)
    with pytest.raises(backslash.ConfigurationError, match="encoder and decoder"):
        calibrate(transformers.T5ForConditionalGeneration(both), tokenizer, TEXTS)
    model = llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises((backslash.InvalidTensorError, backslash.ConfigurationError, RuntimeError)):
        compress_model(model, tokenizer, TEXTS, tmp_path / "small", bits_per_weight=3, calibration_tokens=64)
    with pytest.raises(backslash.BudgetError):
        compress_model(llama(), tokenizer, None, tmp_path / "small", budget=300)
    assert not list(tmp_path.iterdir())


def test_folders_that_are_there_are_replaced_only_on_request(tokenizer, tmp_path):
    path = tmp_path / "small"
    arguments = {"bits_per_weight": 4, "calibration_tokens": 64}
    compress_model(llama(), tokenizer, TEXTS, path, **arguments)
    before = (path / "model.bsl").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        compress_model(llama(), tokenizer, TEXTS, path, **arguments)
    other = tmp_path / "mine"
    other.mkdir()
    with pytest.raises(FileExistsError, match="not replaced"):
        compress_model(llama(), tokenizer, TEXTS, other, overwrite=True, **arguments)

    def stop(done, total, what):
        if what.startswith("file"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(llama(), tokenizer, TEXTS, path, overwrite=True, progress=stop, **arguments)
    assert (path / "model.bsl").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "small"]


def test_files_of_other_models_are_refused(tokenizer, tmp_path):
    path = tmp_path / "small"
    compress_model(llama(), tokenizer, None, path, bits_per_weight=4)
    with pytest.raises(FileNotFoundError):
        from_backslash(tmp_path)
    config = json.loads((path / "config.json").read_text())
    for change, message in [
        ({"num_hidden_layers": 3}, "missing keys"),
        ({"num_hidden_layers": 1}, "unexpected keys"),
        ({"intermediate_size": 64}, "mismatched keys"),
    ]:
        (path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(backslash.InvalidTensorError, match=message):
            from_backslash(path)
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["Unheard"]}))
    with pytest.raises(backslash.ConfigurationError, match="has no Unheard"):
        from_backslash(path)
    (path / "config.json").write_text(json.dumps(config))
    whole = (path / "model.bsl").read_bytes()
    (path / "model.bsl").write_bytes(whole[:-100])
    with pytest.raises(backslash.CorruptFileError):
        from_backslash(path)


def test_calibrations_of_other_models_are_refused(tokenizer, tmp_path):
    calibration = calibrate(llama(), tokenizer, TEXTS, tokens=64)
    with pytest.raises(backslash.BackslashError, match="of another model|has no tensor"):
        compress_model(gpt2(), tokenizer, calibration, tmp_path / "small", bits_per_weight=4)
    calibration.save(tmp_path / "c.safetensors")
    assert Calibration.load(tmp_path / "c.safetensors").index == calibration.index
    (tmp_path / "x.safetensors").write_bytes(b"none")
    with pytest.raises(backslash.ConfigurationError, match="no safetensors file"):
        Calibration.load(tmp_path / "x.safetensors")
    from safetensors.numpy import save_file

    save_file({"a": numpy.zeros(3)}, tmp_path / "y.safetensors")
    with pytest.raises(backslash.ConfigurationError, match="holds no calibration"):
        Calibration.load(tmp_path / "y.safetensors")
