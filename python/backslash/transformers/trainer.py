"""The regulariser in the `Trainer` of `transformers`."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from backslash.errors import ConfigurationError
from backslash.inspection import SizeSplit
from backslash.torch import RateRegularizer
from backslash.torch.ranks import fill, whole
from backslash.transformers.weights import canonical_names, stored_tensors

STATE_FILE = "backslash.pt"
"""What the callback adds to a checkpoint of the trainer."""


class RateCallback(TrainerCallback):
    """`RateRegularizer` in a `Trainer`.

        callback = RateCallback(method="bits", weight=0.1)
        trainer = Trainer(model, arguments, train_dataset=dataset, callbacks=[callback])
        trainer.train()
        callback.save("model.bsl")

    The regulariser is made when training begins, of all parameters that are trained, with the steps of that training. It stays
    attached afterwards: with the method "bits" the model then holds what the file gives back, which is what
    `trainer.evaluate()` measures and `trainer.save_model()` writes.

    A checkpoint of the trainer has the model as the loss sees it and, in `backslash.pt`, the state of the regulariser and, with
    the method "bits", the weights that the optimizer moves. `trainer.train(resume_from_checkpoint=True)` goes on with these.

    Args:
        resume_from: The folder of the checkpoint that is resumed, if it is not `checkpoint-STEP` in `output_dir`.
        options: Those of `RateRegularizer`.

    Raises:
        ConfigurationError: when training begins, as `RateRegularizer` and `attach`, or the checkpoint has no `backslash.pt`.
            With the method "bits" also where the best checkpoint is to be loaded in the end, whose steps would be others.
    """

    def __init__(self, *, resume_from: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._resume_from = resume_from
        self._options = options
        self._model: Any = None
        self._trained: dict[str, torch.nn.Parameter] = {}
        self._regularizer: RateRegularizer | None = None

    @property
    def regularizer(self) -> RateRegularizer:
        """That of the last training.

        Raises:
            ConfigurationError: there was none.
        """
        if self._regularizer is None:
            raise ConfigurationError("the regulariser is made when training begins: call trainer.train() first")
        return self._regularizer

    def save(self, path: str | os.PathLike[str], **options: Any) -> SizeSplit:
        """Writes a file of the whole model, what is not trained included. All ranks call it together.

        Args:
            path: The file; as `model.bsl` beside the model's configuration, the folder is one of `from_backslash`.
            options: Those of `RateRegularizer.save`.
        """
        regularizer = self.regularizer
        others = {name: tensor for name, tensor in stored_tensors(self._model).items() if name not in self._trained}
        return regularizer.save(path, others, **options)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Makes the regulariser, takes up what a checkpoint has of it, and attaches it."""
        if self._regularizer is not None:
            self._regularizer.detach()
        keeps_best = args.load_best_model_at_end and self._options.get("method") == "bits"
        if keeps_best:
            raise ConfigurationError(
                'load_best_model_at_end puts weights of another time beside the steps of now: the method "bits" needs it off'
            )
        self._model = objects["model"]
        names = canonical_names(self._model)
        self._trained = {names[id(p)]: p for p in self._model.parameters() if p.requires_grad}
        self._regularizer = RateRegularizer(self._trained.items(), **{"steps": state.max_steps, **self._options})
        if state.global_step > 0:
            self._resume(pathlib.Path(self._resume_from or _checkpoint(args, state)))
        # Accelerate wraps optimizers in one that has no hooks.
        optimizer = objects["optimizer"]
        self._regularizer.attach(getattr(optimizer, "optimizer", optimizer))

    @torch.no_grad()
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any) -> None:
        """Adds what the next training needs to the checkpoint."""
        kept: dict[str, Any] = {"regularizer": self.regularizer.state_dict(), "weights": {}}
        if self.regularizer.method == "bits":
            with self.regularizer.master_weights():
                kept["weights"] = {name: whole(parameter).cpu().clone() for name, parameter in self._trained.items()}
        folder = _checkpoint(args, state)
        if args.should_save and folder.exists():
            torch.save(kept, folder / STATE_FILE)

    @torch.no_grad()
    def _resume(self, folder: pathlib.Path) -> None:
        file = folder / STATE_FILE
        if not file.exists():
            raise ConfigurationError(
                f"{folder} has no {STATE_FILE}, which a training with this callback writes: resume_from= names another folder"
            )
        kept = torch.load(file, map_location="cpu", weights_only=True)
        for name, weights in kept["weights"].items():
            if name not in self._trained or self._trained[name].shape != weights.shape:
                raise ConfigurationError(f"{file}: the model that is trained has no `{name}` of shape {tuple(weights.shape)}")
            fill(self._trained[name], weights)
        self.regularizer.load_state_dict(kept["regularizer"])


def _checkpoint(args: TrainingArguments, state: TrainerState) -> pathlib.Path:
    return pathlib.Path(args.output_dir, f"checkpoint-{state.global_step}")
