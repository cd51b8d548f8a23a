"""Second moments of what the linear layers of a model read."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy
import torch
from transformers.pytorch_utils import Conv1D

from backslash.errors import ConfigurationError


class Inputs:
    """Watches the linear layers of a model while it is a context.

    Layers that are given the same tensor share its moments, which are kept under the name of the first.
    """

    def __init__(self, model: Any, names: dict[int, str]) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._samples: dict[str, int] = {}
        self._inputs: dict[str, str] = {}
        self._inputs_first: set[str] = set()
        # Tensors of this forward pass: held, so that none has the identity of one before it.
        self._seen: dict[int, tuple[torch.Tensor, str]] = {}
        self._watched = []
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
        self._tied: set[str] = set()
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(module, (torch.nn.Linear, Conv1D)) and id(weight) in names:
                self._watched.append((module, names[id(weight)]))
                if id(weight) in embeddings:
                    self._tied.add(names[id(weight)])
        self._handles: list[Any] = []

    def __enter__(self) -> Inputs:
        def watch(module: torch.nn.Module, name: str) -> Any:
            return module.register_forward_pre_hook(
                lambda module, arguments: self._add(module, name, arguments[0])
            )

        self._handles = [watch(module, name) for module, name in self._watched]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._seen.clear()

    def end_of_forward(self) -> None:
        """Lets go of the tensors of a forward pass."""
        self._seen.clear()

    def moments(self) -> dict[str, numpy.ndarray]:
        """E[x·xᵀ] of each input, float32, by the name of the first matrix that reads it.

        Raises:
            ConfigurationError: they are not finite.
        """
        found = {}
        for name, total in self._sums.items():
            moments = (total / self._samples[name]).cpu().numpy()
            if not numpy.isfinite(moments).all():
                raise ConfigurationError(f"what `{name}` reads is not finite: the model overflows on these texts")
            found[name] = moments
        return found

    def index(self) -> dict[str, Any]:
        """Which input each matrix reads, and what is special about it."""
        return {
            "inputs": self._inputs,
            "samples": self._samples,
            "tied": sorted(self._tied & self._inputs.keys()),
            "inputs_first": sorted(self._inputs_first),
        }

    def _add(self, module: torch.nn.Module, matrix: str, read: torch.Tensor) -> None:
        _, first = self._seen.setdefault(id(read), (read, matrix))
        first = self._inputs.setdefault(matrix, first)
        if isinstance(module, Conv1D):
            self._inputs_first.add(matrix)
        if first != matrix:
            return
        rows = read.detach().flatten(0, -2).float()
        moments = rows.T @ rows
        if matrix in self._sums:
            self._sums[matrix] += moments
        else:
            self._sums[matrix] = moments
        self._samples[matrix] = self._samples.get(matrix, 0) + len(rows)
