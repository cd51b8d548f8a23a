"""What a model's layers see, and how much its predictions mind an error in each of its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from backslash.errors import ConfigurationError
from backslash.files import Progress
from backslash.transformers.inputs import Inputs
from backslash.transformers.rows import rows
from backslash.transformers.weights import canonical_names

_INDEX_KEY = "backslash_calibration"


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` has learned of a model. It serves for files of any size, here and on the command line."""

    tensors: dict[str, numpy.ndarray]
    """float32: `moments/INPUT`, E[x·xᵀ] of what a layer reads, shape [inputs, inputs]; `sensitivity/MATRIX`, the mean Fisher
    information of the weights of each row, in nats per token, shape [rows]."""
    index: str
    """Which input each matrix reads, and how often it was seen, as JSON."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file, for `backslash compress --calibration` and `load`."""
        from safetensors.numpy import save_file

        save_file(self.tensors, path, metadata={_INDEX_KEY: self.index})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads what `save` has written.

        Raises:
            ConfigurationError: the file is another one.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                index = (file.metadata() or {}).get(_INDEX_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ConfigurationError(f"{os.fspath(path)} is no safetensors file: {error}") from None
        if index is None:
            raise ConfigurationError(f"{os.fspath(path)} holds no calibration; one that `Calibration.save` wrote would")
        return cls(tensors, index)


def calibrate(
    model: Any,
    tokenizer: Any,
    texts: str | Iterable[str],
    *,
    tokens: int = 49_152,
    seed: int = 1,
    progress: Progress | None = None,
) -> Calibration:
    """Runs a model over text, forwards and backwards, on the device where it is.

    With p(·) the model's own predictions and g the gradient of the mean of −ln p(y) over the T predictions of a row, y drawn
    from p, T·E[g_i²] is the i-th diagonal element of the Fisher matrix: the curvature of the Kullback–Leibler divergence
    from the model to its quantised copy. Labels are not needed. The same pass gathers E[x·xᵀ] of the inputs x of every linear
    layer. Neither gradients nor the mode of the model are changed.

    Args:
        model: A model of `transformers` whose output has logits: one that predicts tokens, or classes.
        tokenizer: Its tokenizer.
        texts: One text or several, like those that the model is for.
        tokens: How many of their tokens are used. Ten for each input of the widest layer are enough.
        seed: Of the draws from the predictions.
        progress: Called with (rows done, rows in all, "calibrating").

    Raises:
        ConfigurationError: the model does not predict from one text, or the texts are empty.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise ConfigurationError("a model of encoder and decoder needs two texts: pass calibration_texts=None")
    found = rows(model, tokenizer, texts, tokens)
    names = canonical_names(model)
    parameters = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    sums = [torch.zeros(len(parameter), device=parameter.device) for parameter in parameters]
    generator = torch.Generator(model.device).manual_seed(seed)
    with _evaluating(model, parameters), Inputs(model, names) as inputs:
        for done, row in enumerate(found):
            if progress is not None:
                progress(done, len(found), "calibrating")
            gradients, predictions = _gradients(model, parameters, row, generator)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total += predictions * gradient.float().square().flatten(1).mean(1)
            inputs.end_of_forward()
    tensors = {f"moments/{name}": moments for name, moments in inputs.moments().items()}
    for parameter, total in zip(parameters, sums, strict=True):
        tensors[f"sensitivity/{names[id(parameter)]}"] = (total / len(found)).cpu().numpy()
    index = inputs.index() | {"tokens": sum(len(row) for row in found)}
    return Calibration(tensors, json.dumps(index, sort_keys=True))


def _gradients(
    model: Any, parameters: list[torch.nn.Parameter], row: torch.Tensor, generator: torch.Generator
) -> tuple[tuple[torch.Tensor | None, ...], int]:
    """Gradients of the loss against classes that are drawn from the model's predictions, and how many there are."""
    output = model(input_ids=row[None].to(model.device))
    if getattr(output, "logits", None) is None:
        raise ConfigurationError(f"{type(model).__name__} predicts nothing: load it with a head, such as AutoModelForCausalLM")
    logits = output.logits.float().flatten(0, -2)
    drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator).squeeze(1)
    loss = torch.nn.functional.cross_entropy(logits, drawn)
    return torch.autograd.grad(loss, parameters, allow_unused=True), len(logits)


@contextmanager
def _evaluating(model: Any, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """Without dropout and with gradients for all parameters; afterwards all is as it was."""
    training = [module for module in model.modules() if module.training]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module in training:
            module.training = True
