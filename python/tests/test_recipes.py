"""Trainings by other people's loops end at the weights of a plain one with the same regulariser and batches.

What `docs/pytorch.md` shows: finishing, Accelerate, Lightning and the `Trainer` of `transformers`.
"""

import copy
import functools
import pathlib
import re

import pytest
import torch
import torch.distributed.tensor

from backslash import ConfigurationError
from backslash.torch import RateRegularizer, load_file, ranks

EPOCHS, STEPS, BATCH, VOCABULARY, CONTEXT = 2, 20, 8, 64, 6
LEARNING_RATE, LONGEST_GRADIENT = 0.01, 0.05
OPTIONS = {
    "backslash": {"method": "backslash", "weight": 1e-3},
    "bits": {"method": "bits", "weight": 0.5, "steps": STEPS, "start": 0.2, "rounding_from": 0.5},
}
both_methods = pytest.mark.parametrize("method", OPTIONS)
whole_and_accumulated = pytest.mark.parametrize("parts", [1, 2])


class Network(torch.nn.Module):
    """With the interface that the trainer asks for: the loss comes first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = torch.nn.Embedding(VOCABULARY, 32)
        self.hidden = torch.nn.Linear(32, 48)
        self.head = torch.nn.Linear(48, VOCABULARY)

    def forward(self, input_ids, labels):
        logits = self.head(torch.tanh(self.hidden(self.embedding(input_ids))))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


class Data(torch.utils.data.Dataset):
    """A training step takes the next BATCH examples, and an epoch all of them."""

    def __init__(self):
        tokens = torch.randint(VOCABULARY, (STEPS // EPOCHS * BATCH, CONTEXT), generator=torch.Generator().manual_seed(5))
        self.examples = [{"input_ids": row, "labels": (3 * row + 1) % VOCABULARY} for row in tokens]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def loader(batch=BATCH):
    return torch.utils.data.DataLoader(Data(), batch_size=batch)


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)


def scheduler_of(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)


def weights_of(model, regularizer):
    """Weights that the optimizer moves, and those that the loss sees."""
    shown = copy.deepcopy(model.state_dict())
    with regularizer.master_weights():
        return copy.deepcopy(model.state_dict()), shown


@functools.cache
def plain(method, parts=1):
    """The loop as it stands in PyTorch's own examples, batches coming in parts."""
    model = Network()
    optimizer = optimizer_of(model)
    scheduler = scheduler_of(optimizer)
    regularizer = RateRegularizer(model.named_parameters(), **OPTIONS[method]).attach(optimizer)
    for _ in range(EPOCHS):
        for index, batch in enumerate(loader(BATCH // parts), 1):
            (model(**batch)["loss"] / parts).backward()
            if index % parts == 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), LONGEST_GRADIENT)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    assert regularizer.steps == STEPS
    return weights_of(model, regularizer)


def check(method, parts, model, regularizer):
    assert regularizer.steps == STEPS
    for ours, expected in zip(weights_of(model, regularizer), plain(method, parts), strict=True):
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6, msg=lambda text: f"{name}: {text}")  # noqa: B023


def test_the_regularizer_matters_to_the_comparison():
    weights = {method: plain(method)[0] for method in OPTIONS}
    for name in ("embedding.weight", "hidden.weight", "head.weight"):
        assert (weights["bits"][name] - weights["backslash"][name]).abs().max() > 1e-3
        assert (plain("bits")[1][name] - weights["bits"][name]).abs().max() > 1e-3


@both_methods
@whole_and_accumulated
def test_accelerate(method, parts, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
    accelerator = accelerate.Accelerator(gradient_accumulation_steps=parts, cpu=True)
    model = Network()
    optimizer = optimizer_of(model)
    model, optimizer, scheduler, data = accelerator.prepare(model, optimizer, scheduler_of(optimizer), loader(BATCH // parts))
    regularizer = RateRegularizer(model.named_parameters(), **OPTIONS[method]).attach(optimizer.optimizer)
    accelerator.register_for_checkpointing(regularizer)
    for _ in range(EPOCHS):
        for batch in data:
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch)["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), LONGEST_GRADIENT)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    check(method, parts, accelerator.unwrap_model(model), regularizer)

    # A checkpoint, and back after other steps.
    with regularizer.master_weights():
        accelerator.save_state(tmp_path)
    expected = weights_of(model, regularizer)
    model(**batch)["loss"].backward()
    optimizer.optimizer.step()
    accelerator.load_state(tmp_path)
    assert regularizer.steps == STEPS
    for ours, theirs in zip(weights_of(model, regularizer), expected, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def trained_by_trainer(folder, callback, parts=1, until=STEPS, resume=False, **settings):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate, which the trainer needs, is not installed: pip install accelerate")

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *arguments):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Stopping(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **objects):
            control.should_training_stop = state.global_step >= until

    arguments = transformers.TrainingArguments(
        folder, per_device_train_batch_size=BATCH // parts, gradient_accumulation_steps=parts, max_steps=STEPS,
        max_grad_norm=LONGEST_GRADIENT, learning_rate=LEARNING_RATE, weight_decay=0.0, lr_scheduler_type="linear",
        optim="adamw_torch", report_to=[], save_steps=5, use_cpu=True, disable_tqdm=True, **settings,
    )  # fmt: skip
    model = Network()
    trainer = InOrder(model, arguments, train_dataset=Data(), callbacks=[callback, Stopping()])
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def callback_of(method, **options):
    transformers = pytest.importorskip("backslash.transformers", reason="transformers is not installed")
    settings = {key: value for key, value in OPTIONS[method].items() if key != "steps"}
    return transformers.RateCallback(**{**settings, **options})


@both_methods
@whole_and_accumulated
def test_trainer(method, parts, tmp_path):
    callback = callback_of(method)
    trainer = trained_by_trainer(tmp_path / "run", callback, parts)
    check(method, parts, trainer.model, callback.regularizer)
    size = callback.save(tmp_path / "model.bsl")
    assert size.total == (tmp_path / "model.bsl").stat().st_size
    if method == "bits":
        loaded = load_file(tmp_path / "model.bsl")
        for name in callback.regularizer.learned_steps():
            assert torch.equal(loaded[name], trainer.model.state_dict()[name])


@both_methods
@pytest.mark.parametrize("at", [5, 15])
def test_a_trainer_goes_on_from_a_checkpoint(method, at, tmp_path):
    trained_by_trainer(tmp_path, callback_of(method), until=at)
    # What the state says counts, not what the callback is told then.
    callback = callback_of(method, weight=7.0)
    trainer = trained_by_trainer(tmp_path, callback, resume=True)
    check(method, 1, trainer.model, callback.regularizer)


def test_a_trainer_trains_twice(tmp_path):
    callback = callback_of("bits")
    trainer = trained_by_trainer(tmp_path, callback)
    first = callback.regularizer
    with first.master_weights():
        weights = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert callback.regularizer is not first and callback.regularizer.steps == STEPS
    assert any(not torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())


def test_weights_of_a_checkpoint_are_whole_where_parameters_are_sharded(tmp_path):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        sharded = torch.nn.Parameter(dist.tensor.distribute_tensor(torch.zeros(5, 3), mesh, [dist.tensor.Shard(0)]))
        ranks.fill(sharded, torch.arange(15.0).view(5, 3))
        copied = ranks.whole(sharded).cpu().clone()
        assert type(copied) is torch.Tensor and torch.equal(copied, torch.arange(15.0).view(5, 3))
    finally:
        dist.destroy_process_group()


def test_what_a_trainer_cannot_do_is_said(tmp_path):
    callback = callback_of("bits")
    with pytest.raises(ConfigurationError, match="training begins"):
        callback.save(tmp_path / "model.bsl")
    with pytest.raises(ConfigurationError, match="load_best_model_at_end"):
        best = {"load_best_model_at_end": True, "eval_strategy": "no", "save_strategy": "no"}
        trained_by_trainer(tmp_path / "best", callback, **best)
    trained_by_trainer(tmp_path / "run", callback, until=5)
    (tmp_path / "run" / "checkpoint-5" / "backslash.pt").unlink()
    with pytest.raises(ConfigurationError, match="checkpoint-5 has no backslash.pt"):
        trained_by_trainer(tmp_path / "run", callback_of("bits"), resume=True)
    with pytest.raises(ConfigurationError, match="elsewhere has no backslash.pt"):
        trained_by_trainer(tmp_path / "run", callback_of("bits", resume_from=tmp_path / "elsewhere"), resume=True)


@both_methods
@whole_and_accumulated
def test_lightning(method, parts, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")

    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.state = Network(), None

        def training_step(self, batch, index):
            return self.network(**batch)["loss"]

        def configure_optimizers(self):
            optimizer = optimizer_of(self.network)
            return [optimizer], [{"scheduler": scheduler_of(optimizer), "interval": "step"}]

        def on_train_start(self):
            self.regularizer = RateRegularizer(self.network.named_parameters(), **OPTIONS[method])
            if self.state is not None:
                self.regularizer.load_state_dict(self.state)
            self.regularizer.attach(*self.trainer.optimizers)

        def on_save_checkpoint(self, checkpoint):
            with self.regularizer.master_weights():
                checkpoint["state_dict"] = copy.deepcopy(self.state_dict())
            checkpoint["regularizer"] = self.regularizer.state_dict()

        def on_load_checkpoint(self, checkpoint):
            self.state = checkpoint["regularizer"]

    def trained(resumed=None):
        kept = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "run", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trainer = lightning.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", accumulate_grad_batches=parts, gradient_clip_val=LONGEST_GRADIENT,
            callbacks=[kept], logger=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Training()
        trainer.fit(module, loader(BATCH // parts), ckpt_path=resumed)
        return module

    module = trained()
    check(method, parts, module.network, module.regularizer)
    module = trained(resumed=tmp_path / "run" / "epoch=0.ckpt")
    check(method, parts, module.network, module.regularizer)


DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "pytorch.md"


@pytest.mark.parametrize(
    ("title", "library"),
    [
        ("Finishing a trained model", "torch"),
        ("Accelerate", "accelerate"),
        ("Lightning", "lightning"),
        ("Trainer of transformers", "accelerate"),
    ],
)
def test_what_is_documented_runs(title, library, tmp_path, monkeypatch):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install {library}")
    pytest.importorskip("transformers", reason="transformers is not installed")
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    (script,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    variables = {}
    exec(compile(script, f"{DOCUMENT.name}, {title}", "exec"), variables)
    (file,) = tmp_path.rglob("model.bsl")
    assert variables["size"].total == file.stat().st_size
    assert len(load_file(file)) > 1
