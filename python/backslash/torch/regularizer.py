"""Training for a small file, beside any optimizer.

The method "backslash" is the decoupled step of the released code of BackSlash (arXiv 2504.16968): after every step of the
optimizer each weight is pulled towards zero,

    θ ← θ − weight·ν·sign(θ)·(|θ|+ε)^(ν−1),

ν being the shape of a generalised Gaussian with the moments E[θ²]/E[|θ|]² of all weights together, by the nearest entry
of the published table. The learning rate does not multiply the pull, and `weight` is the paper's λ over its number of
parameters N.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from backslash.errors import ConfigurationError
from backslash.torch.entropy import code_entropy
from backslash.torch.parameters import Parameter, absolute_and_square_sums, checked, named
from backslash.torch.shape import ShapeTable


@dataclass
class Group:
    """Parameters that are pulled with the same weight."""

    weight: float
    """λ/N: how far a weight is pulled in a step at ν = 1. It can be changed between steps, as by a schedule."""
    parameters: list[Parameter]


class RateRegularizer:
    """Pulls weights towards a small file after every step of an optimizer.

        regularizer = RateRegularizer(model.named_parameters(), weight=1e-6).attach(optimizer)

    Made of tensors and sums alone, it asks the device for nothing during a step. Where `torch.distributed` has been
    initialised, the sums of all ranks are added by one all-reduce of two numbers per step, which is right under
    `DistributedDataParallel`, `fully_shard` and any placement of a `DTensor` but partial ones; each distinct element
    counts once. Make it after the model has been wrapped and on every rank: it compares what it is told among them.

    Args:
        parameters: Parameters, pairs of name and parameter, or groups: dictionaries with "params" and, optionally,
            "weight". A parameter that comes twice in a group, as tied ones do, counts once.
        weight: λ/N of the groups that have none of their own, in units of the weights per step.
        method: "backslash".
        epsilon: ε, which keeps the pull finite at zero; 1 in the released code.
        process_group: The ranks over which the parameters are spread and replicated; all, if None.

    Raises:
        ConfigurationError: a parameter cannot be regularised, is in two groups, or ranks disagree.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        weight: float | None = None,
        *,
        method: str = "backslash",
        epsilon: float = 1.0,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if method != "backslash":
            raise ConfigurationError(f'method is {method!r}; there is "backslash"')
        if not (math.isfinite(epsilon) and epsilon > 0):
            raise ConfigurationError(f"epsilon is {epsilon}; it must be a positive number")
        self.method = method
        self.epsilon = epsilon
        self.steps = 0
        """Steps taken."""
        self._process_group = process_group
        self._ranks = dist.get_world_size(process_group) if _is_distributed() else 1
        self.groups = _groups(parameters, weight, self._ranks)
        everything = self._parameters()
        self._device = _common_device(everything)
        self._count = sum(parameter.tensor.numel() for parameter in everything)
        self._table = ShapeTable(self._device)
        self._handle: Any = None
        _warn_of_short_types(everything)
        self._refuse_disagreement()

    def attach(self, *optimizers: torch.optim.Optimizer) -> RateRegularizer:
        """Steps after every step of the last of these optimizers, which together hold all regularised parameters.

        Raises:
            ConfigurationError: they do not, or it is attached already.
        """
        if self._handle is not None:
            raise ConfigurationError("the regulariser is attached already: detach() it first")
        held = {
            id(parameter)
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        missing = [p.name for p in self._parameters() if id(p.tensor) not in held]
        if missing or not optimizers:
            raise ConfigurationError(
                f"{len(missing)} regularised parameters, `{missing[0] if missing else ''}` the first of them, are in none of "
                f"the {len(optimizers)} optimizers. Make the regulariser of the parameters the model has after wrapping. "
                "An optimizer per parameter that steps in the backward pass cannot be attached to: call step() once all "
                "of them have stepped"
            )
        self._handle = optimizers[-1].register_step_post_hook(self._after_step)
        return self

    def detach(self) -> None:
        """Ends what `attach` began."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @torch.no_grad()
    def step(self, *, skipped: torch.Tensor | None = None) -> None:
        """Pulls all weights once: for loops that do not `attach`. All ranks call it together.

        Args:
            skipped: A tensor of one element that is not zero where the optimizer has left out its step.
        """
        shape = self._fitted_shape()
        exponent = shape - 1
        for group in self.groups:
            strength = group.weight * shape
            if skipped is not None:
                strength = torch.where(skipped.reshape(()).to(strength.device) == 0, strength, 0.0)
            for parameter in group.parameters:
                _pull(parameter.local(), strength, exponent, self.epsilon)
        self.steps += 1

    @torch.no_grad()
    def shape(self) -> float:
        """ν of all weights as they are now. All ranks call it together; it waits for the device."""
        return self._fitted_shape().item()

    @torch.no_grad()
    def bits(self, step: float = 2.0**-8) -> float:
        """Entropy of round(w/step) over all weights, in bits per weight: about what an entropy coder with one table
        takes. An estimate; the size is what `backslash.save_file` returns. All ranks call it together; it waits for the
        device.

        Args:
            step: The one step of all weights; 2^-8 in the paper.
        """
        return code_entropy(self._parameters(), step, self._device, self._all_reduce)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold, the same on all ranks."""
        return {
            "method": self.method,
            "epsilon": self.epsilon,
            "weights": [group.weight for group in self.groups],
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` has returned.

        Raises:
            ConfigurationError: it is that of another method, or of other groups.
        """
        if state["method"] != self.method or len(state["weights"]) != len(self.groups):
            raise ConfigurationError(
                f"the state is of method {state['method']!r} with {len(state['weights'])} groups, the regulariser of "
                f"{self.method!r} with {len(self.groups)}"
            )
        self.epsilon, self.steps = state["epsilon"], state["steps"]
        for group, weight in zip(self.groups, state["weights"], strict=True):
            group.weight = weight

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # Optimizers that look for infinities themselves step over a batch without telling anybody else.
        self.step(skipped=getattr(optimizer, "found_inf", None))

    def _parameters(self) -> list[Parameter]:
        return [parameter for group in self.groups for parameter in group.parameters]

    def _fitted_shape(self) -> torch.Tensor:
        sums = absolute_and_square_sums(self._parameters(), self._device)
        self._all_reduce(sums)
        return self._table.of_sums(sums, self._count)

    def _all_reduce(self, tensor: torch.Tensor, operation: Any = None) -> None:
        if self._ranks > 1:
            operation = dist.ReduceOp.SUM if operation is None else operation
            dist.all_reduce(tensor, operation, group=self._process_group)

    def _refuse_disagreement(self) -> None:
        if self._ranks == 1:
            return
        mine = (self.state_dict(), [p.fingerprint() for p in self._parameters()])
        all_ranks: list[Any] = [None] * self._ranks
        dist.all_gather_object(all_ranks, mine, group=self._process_group)
        different = [rank for rank, theirs in enumerate(all_ranks) if theirs != all_ranks[0]]
        if different:
            raise ConfigurationError(
                f"rank {different[0]} has another regulariser than rank 0: method, epsilon, weights and the names, shapes "
                "and types of the parameters must be the same on all ranks"
            )


def _pull(
    weights: torch.Tensor, strength: torch.Tensor, exponent: torch.Tensor, epsilon: float
) -> None:
    """θ ← θ − strength·sign(θ)·(|θ|+ε)^exponent, computed in float32 at least."""
    if weights.dtype.itemsize < 4:
        wide = weights.float()
        _pull(wide, strength, exponent, epsilon)
        weights.copy_(wide)
        return
    # A power by way of its logarithm takes an eighth of the time of pow on a CPU.
    force = weights.abs().add_(epsilon).log_().mul_(exponent).exp_().mul_(strength)
    weights.addcmul_(force, weights.sign(), value=-1)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _groups(parameters: Iterable[Any], weight: float | None, ranks: int) -> list[Group]:
    entries = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    are_groups = [isinstance(entry, dict) for entry in entries]
    if not any(are_groups):
        entries = [{"params": entries}]
    elif not all(are_groups):
        raise ConfigurationError("parameters are groups in part; either all or none would be right")
    groups: list[Group] = []
    owner: dict[int, int] = {}
    for index, entry in enumerate(entries):
        strength = entry.get("weight", weight)
        if strength is None or not (math.isfinite(strength) and strength >= 0):
            raise ConfigurationError(
                f"the weight of group {index} is {strength}; it must be a number of at least 0"
            )
        group = Group(float(strength), [])
        for name, tensor in named(entry["params"], f"{index}." if len(entries) > 1 else ""):
            if owner.get(id(tensor), index) != index:
                raise ConfigurationError(
                    f"parameter `{name}` is in groups {owner[id(tensor)]} and {index}; one would be right"
                )
            if id(tensor) not in owner:
                owner[id(tensor)] = index
                group.parameters.append(checked(name, tensor, ranks))
        groups.append(group)
    if not any(group.parameters for group in groups):
        raise ConfigurationError("there are no parameters to regularise")
    return groups


def _common_device(parameters: list[Parameter]) -> torch.device:
    first = parameters[0]
    for parameter in parameters:
        if parameter.tensor.device != first.tensor.device:
            raise ConfigurationError(
                f"parameter `{parameter.name}` is on {parameter.tensor.device}, `{first.name}` on "
                f"{first.tensor.device}; one device for all of a rank would be right"
            )
    return first.tensor.device


def _warn_of_short_types(parameters: list[Parameter]) -> None:
    short = [p for p in parameters if p.tensor.dtype.itemsize < 4]
    if short:
        warnings.warn(
            f"parameter `{short[0].name}` is of type {short[0].tensor.dtype}: pulls of less than half its last bit are lost. "
            "Keep parameters in float32 and compute in short types by autocast or MixedPrecisionPolicy",
            stacklevel=3,
        )
