"""Steps and probability models of all coded tensors, as parameters that Adam moves."""

from __future__ import annotations

import math

import torch

# Scales of the components that a mixture begins with, over the root mean square of the weights.
_NARROW, _WIDE = 0.4, 0.9
_BETA1, _BETA2, _EPSILON = 0.9, 0.99, 1e-12
# Classes of scale of the codes of a matrix, four per octave, the middle one being that of the whole.
CLASSES = 33
_PER_OCTAVE = 4
STEP, LOGIT, SCALES = 0, 1, slice(2, 4)


class Models:
    """ln Δ, the logit and ln s of both components of every tensor.

    A tensor's weights have the density m·L(w; s₀) + (1−m)·L(w; s₁), L being that of Laplace and m = σ(logit).

    Args:
        count: How many tensors.
        device: Where all of it is.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.values = torch.zeros(count, 4, dtype=torch.float64, device=device)
        self.first = torch.zeros_like(self.values)
        self.second = torch.zeros_like(self.values)
        self.time = torch.zeros(count, 1, dtype=torch.float64, device=device)

    def begin(self, scales: torch.Tensor, initial_step: float) -> None:
        """Steps are `initial_step` times the scales, one for each tensor, and models are those of weights of these scales."""
        for state in (self.values, self.first, self.second, self.time):
            state.zero_()
        log = scales.log()
        self.values[:, STEP] = log + math.log(initial_step)
        self.values[:, 2] = log + math.log(_NARROW)
        self.values[:, 3] = log + math.log(_WIDE)

    def update(
        self, gradient: torch.Tensor, taken: torch.Tensor, learning_rate: float | torch.Tensor
    ) -> None:
        """One step of Adam of those tensors for which `taken` is not zero."""
        taken = taken.reshape(-1, 1) > 0
        self.time += taken
        # Where nothing has been taken yet any time does.
        time = self.time.clamp(min=1)
        gradient = torch.where(taken, gradient, 0.0)
        for state, beta, new in (
            (self.first, _BETA1, gradient),
            (self.second, _BETA2, gradient.square()),
        ):
            state.copy_(torch.where(taken, state + (1 - beta) * (new - state), state))
        mean = self.first / (1 - _BETA1**time)
        square = self.second / (1 - _BETA2**time)
        moved = learning_rate * mean / (square.sqrt() + _EPSILON)
        self.values -= torch.where(taken, moved, 0.0)

    def steps(self) -> torch.Tensor:
        """Δ of every tensor in float32, as a file has it."""
        return self.values[:, STEP].exp().float()

    def components(self, classes: int) -> Components:
        """What both components have to say about a cell, by class of scale.

        Args:
            classes: `CLASSES`, or 1 for the scale of the whole alone.
        """
        octaves = (torch.arange(classes, dtype=torch.float64, device=self.values.device) - classes // 2) / _PER_OCTAVE
        scales = (self.values[:, SCALES, None] + math.log(2) * octaves).exp()
        half = 0.5 * self.steps().double()[:, None, None] / scales
        share = self.values[:, LOGIT].sigmoid()
        bounded = half.clamp(max=80.0)
        return Components(
            torch.stack((share, 1 - share), 1).float(),
            (1 / scales).float(),
            (-half).exp().float(),
            bounded.sinh().float(),
            bounded.cosh().float(),
        )

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that changes, on the CPU."""
        state = {"values": self.values, "first": self.first, "second": self.second, "time": self.time}
        return {key: value.detach().cpu().clone() for key, value in state.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Takes up what `state` has returned."""
        for own, key in ((self.values, "values"), (self.first, "first"), (self.second, "second"), (self.time, "time")):
            own.copy_(state[key])


class Components:
    """Of both components: share m, 1/s, e^(−Δ/2s), sinh and cosh of Δ/2s; by tensor, component and class of scale."""

    def __init__(
        self,
        share: torch.Tensor,
        inverse_scale: torch.Tensor,
        inner: torch.Tensor,
        sinh: torch.Tensor,
        cosh: torch.Tensor,
    ) -> None:
        self.share = share
        self.by_class = (inverse_scale, inner, sinh, cosh)

    def of(self, tensor: int, component: int, classes: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Those of one tensor's component, for weights of these classes."""
        tables = [table[tensor, component] for table in self.by_class]
        if classes is not None:
            tables = [table[classes] for table in tables]
        return self.share[tensor, component], *tables
