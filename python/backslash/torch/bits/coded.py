"""Tensors of which a file holds codes, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backslash.errors import ConfigurationError
from backslash.torch.bits.block import Block, block_of, is_coded
from backslash.torch.groups import Group
from backslash.torch.parameters import DTensor, Parameter

# What a file and each of its tensors have beside codes and numbers, in bytes.
_BYTES_OF_FILE, _BYTES_OF_TENSOR = 100, 32


@dataclass
class Coded:
    """A tensor of which a file holds codes."""

    parameter: Parameter
    group: Group
    """Whose weight is its price of a bit."""
    at: int
    """Where it stands among all regularised parameters, which makes its noise its own."""
    block: Block
    master: torch.Tensor | None = None
    """The weights as the optimizer moves them, while the parameter holds what the loss sees."""
    version: int = 0
    """The parameter's when it was given what the loss sees."""
    largest: float = 0.0
    """Largest magnitude of a code, where compiled passes need it."""

    @property
    def name(self) -> str:
        return self.parameter.name

    def shows_points(self) -> bool:
        """Whether the parameter still holds what it was given for the loss."""
        return self.master is not None and self.parameter.local()._version == self.version


def bytes_without_codes(groups: list[Group], tensors: list[Coded], budget: int) -> float:
    """About the bytes of a file that are no codes.

    Raises:
        ConfigurationError: the budget has no room for anything else.
    """
    coded = {id(coded.parameter.tensor) for coded in tensors}
    fixed = _BYTES_OF_FILE
    for parameter in (parameter for group in groups for parameter in group.parameters):
        tensor = parameter.tensor
        fixed += _BYTES_OF_TENSOR + len(parameter.name)
        if id(tensor) not in coded:
            fixed += tensor.numel() * (8 if tensor.dtype is torch.float64 else 2)
    if budget <= fixed:
        raise ConfigurationError(f"a budget of {budget} bytes is too small: a file without any code has about {fixed}")
    return fixed


def coded_of(groups: list[Group]) -> list[Coded]:
    """The coded tensors of all groups.

    Raises:
        ConfigurationError: there are none, or one cannot be coded.
    """
    everything = [(group, parameter) for group in groups for parameter in group.parameters]
    tensors = []
    for at, (group, parameter) in enumerate(everything):
        if not is_coded(tuple(parameter.tensor.shape)):
            continue
        if parameter.tensor.dtype is torch.float64:
            raise ConfigurationError(
                f"parameter `{parameter.name}` is of type torch.float64, which a file keeps bit for bit: float32 would be right"
            )
        tensors.append(Coded(parameter, group, at, block_of(parameter)))
    if not tensors:
        raise ConfigurationError(
            "a file has codes of none of the parameters: all are one-dimensional or have fewer than 1,024 weights"
        )
    return tensors


def gradient_of(coded: Coded) -> torch.Tensor:
    """What this rank holds of a parameter's gradient; zeros where it has none, and where it is not to be moved."""
    parameter = coded.parameter.tensor
    if not parameter.requires_grad:
        return torch.zeros_like(coded.parameter.local())
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    if parameter.grad.layout is not torch.strided:
        raise ConfigurationError(f"the gradient of parameter `{coded.name}` is sparse; a dense one would be right")
    if isinstance(parameter.grad, DTensor):
        if parameter.grad.placements != parameter.placements:
            parameter.grad = parameter.grad.redistribute(placements=parameter.placements)
        return parameter.grad.to_local()
    return parameter.grad
