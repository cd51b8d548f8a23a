"""Names of a model's tensors, each of which is stored once."""

from __future__ import annotations

from typing import Any

import torch


def canonical_names(model: Any) -> dict[int, str]:
    """The name of each parameter by its identity; of several, the one that a checkpoint of `transformers` has."""
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    named = list(model.named_parameters(remove_duplicate=False))
    names: dict[int, str] = {}
    # Names that are only ties come last, and are taken where there is no other.
    for name, parameter in sorted(named, key=lambda item: item[0] in tied):
        names.setdefault(id(parameter), name)
    return names


def stored_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The state of a model without tensors that are others by another name."""
    names = set(canonical_names(model).values())
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if name in names or name not in parameters}
