"""J = D + λ·R beside an optimizer, R being the mean code length in bits of all coded weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from backslash.errors import ConfigurationError
from backslash.torch.bits import passes
from backslash.torch.bits.budget import Budget
from backslash.torch.bits.coded import Coded, bytes_without_codes, coded_of, gradient_of
from backslash.torch.bits.lines import Lines
from backslash.torch.bits.models import CLASSES, Models
from backslash.torch.bits.multiplier import Multiplier
from backslash.torch.bits.noise import noise_key
from backslash.torch.bits.schedule import Schedule
from backslash.torch.groups import Group


# Relative difference of sums that come of the order of their terms.
_SAME_WEIGHTS = 1e-9


class Bits:
    """Steps, models and masters of all coded tensors.

    Between the steps of an optimizer a parameter holds the point p that the loss sees: w + Δ·u or Δ·round(w/Δ). Before a step
    λ/N·∂R/∂p is added to its gradient, and it gets w back; after the step it gets the next point. ∂p/∂ln Δ is p − w, so the
    step's gradient is Σ g·(p − w), g being that of J, plus what the code length itself depends on Δ.

    After a step everything that has to be known of all ranks is added at once: the sums that move steps and models, and, of
    tensors that are split, those of the rows and columns of the codes that the loss has seen, by whose levels the codes of the
    next step are priced. Where rounding begins, the first codes are priced by levels of their own, which are added before.

    Args:
        groups: The groups of parameters; of these, tensors of which a file holds codes have a rate.
        schedule: When there is a rate, and when it rounds.
        initial_step: Steps at the start of the rate, over the root mean square of the weights then.
        learning_rate: That of ln Δ and of the models, at the peak of the optimizer's.
        seed: Of the noise.
        budget: Most bytes of the file, λ then being found on the way and multiplied by the weights of groups; None for λ = 1.
        all_reduce: Adds a tensor over all ranks, in place.

    Raises:
        ConfigurationError: there is nothing to code, or a coded tensor cannot be.
    """

    def __init__(
        self,
        groups: list[Group],
        schedule: Schedule,
        *,
        initial_step: float,
        learning_rate: float,
        seed: int,
        budget: int | None,
        device: torch.device,
        all_reduce: Callable[[torch.Tensor], None],
    ) -> None:
        self.schedule = schedule
        self._initial_step = initial_step
        self._learning_rate = learning_rate
        self._seed = seed
        self._device = device
        self._all_reduce = all_reduce
        self.tensors = coded_of(groups)
        self.count = sum(coded.parameter.tensor.numel() for coded in self.tensors)
        self.models = Models(len(self.tensors), device)
        self.budget: Budget | None = None
        if budget is not None:
            fixed = bytes_without_codes(groups, self.tensors, budget)
            self.budget = Budget(budget, fixed, self.count, learning_rate, device)
            self._initial_step *= self.budget.initial_step_factor
        self.begun = False
        """Whether steps and models are known."""
        self._lines = Lines(
            [coded.block for coded in self.tensors],
            [coded.parameter.replicas for coded in self.tensors],
            device,
        )
        self.multiplier = Multiplier()
        # By tensor: the six sums of a pass, and whether there was one.
        self._sums = torch.zeros(len(self.tensors), 7, dtype=torch.float64, device=device)
        self._prices: torch.Tensor | None = None
        self._priced: list[float] = []
        self._plain = False

    def begin_at(self, step: int) -> None:
        """Before the loss of a step with a rate: steps and models are set, and parameters get the points of that step, but
        while weights are shown, which is at the end of that.
        """
        if step < self.schedule.start:
            return
        if not self.begun:
            self._begin()
        if not self.is_active():
            for coded in self.tensors:
                coded.master, coded.version = coded.parameter.local().clone(), -1
            if not self._plain:
                self._show_points(step)

    def end(self) -> None:
        """Parameters get their weights back."""
        for coded in self.tensors:
            if coded.shows_points():
                coded.parameter.local().copy_(coded.master)
            coded.master = None

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """The gradients of what an optimizer is about to move get that of the rate, and parameters their weights."""
        if not self.is_active():
            return
        if self._plain:
            raise ConfigurationError("an optimizer steps while master_weights() are shown: step after leaving them")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        scale = getattr(optimizer, "grad_scale", None)
        scale = None if scale is None else scale.double().reshape(())
        skipped = getattr(optimizer, "found_inf", None)
        prices = self._current_prices()
        rounds = self.schedule.share_at(step) is not None
        components = self.models.components(CLASSES if rounds else 1)
        steps = self.models.steps()
        for index, coded in enumerate(self.tensors):
            if id(coded.parameter.tensor) not in held:
                continue
            self._settle_master(coded)
            price = (prices[index] if scale is None else prices[index] * scale).float()
            sums = passes.add_rate(
                coded.master,
                coded.parameter.local(),
                gradient_of(coded),
                price,
                passes.Model(index, components, steps, self.models.values),
                coded.block,
                self._lines.levels(index) if rounds else None,
                coded.largest,
            )
            # The gradient comes scaled, and everything else does not.
            if scale is not None:
                sums[5] /= scale
            coded.version = -1
            own = self._sums[index]
            own[:6], own[6] = sums, 1.0
            if skipped is not None:
                own.copy_(torch.where(skipped.reshape(()).to(own.device) == 0, own, 0.0))

    def after_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Moves steps and models, and parameters get the points of the next step."""
        multiplier = self.multiplier.of(optimizer)
        if self.is_active():
            self._add_over_ranks(step)
            prices = self._current_prices()
            by_model = prices[:, None] * self._sums[:, 1:5]
            by_model[:, 0] += self._sums[:, 5]
            # All ranks that hold a tensor have taken its step, or none.
            taken = self._sums[:, 6] > 0
            self.models.update(by_model, taken, multiplier * self._learning_rate)
            if self.budget is not None:
                self._steer(self.budget, multiplier, step)
            self._sums.zero_()
            for coded in self.tensors:
                if coded.shows_points():
                    coded.parameter.local().copy_(coded.master)
            self._show_points(step + 1)
        self.begin_at(step + 1)

    @contextlib.contextmanager
    def master_weights(self, step: Callable[[], int]) -> Iterator[None]:
        """Parameters hold their weights; what they hold in the end are the weights from then on."""
        if self._plain:
            yield
            return
        if self.is_active():
            for coded in self.tensors:
                self._settle_master(coded)
                coded.parameter.local().copy_(coded.master)
                coded.version = -1
        self._plain = True
        try:
            yield
        finally:
            self._plain = False
            # A state taken up meanwhile may be of another time, with or without a rate.
            if self.is_active():
                self._show_points(step())

    def is_active(self) -> bool:
        """Whether parameters hold what the loss sees."""
        return self.tensors[0].master is not None

    def state(self) -> dict[str, Any]:
        """Everything that changes but the weights, of which it holds the sum of magnitudes."""
        return {
            "names": [coded.name for coded in self.tensors],
            "begun": self.begun,
            "models": self.models.state(),
            "rounded": self._lines.known,
            "levels": self._lines.state(),
            "peak": float(self.multiplier.peak),
            "magnitude": self.magnitude().item(),
            "budget": None if self.budget is None else self.budget.state(),
        }

    def restore(self, state: dict[str, Any], step: int, *, is_attached: bool) -> None:
        """Takes up what `state` has returned after so many steps, for the weights that parameters hold.

        Raises:
            ConfigurationError: it is of other tensors or weights.
        """
        keys = ("names", "begun", "models", "rounded", "levels", "peak", "magnitude", "budget")
        missing = [key for key in keys if key not in state]
        if missing:
            raise ConfigurationError(f"the state has no `bits.{missing[0]}`; what state_dict() returns would be right")
        if (state["budget"] is None) != (self.budget is None):
            raise ConfigurationError(
                "the state is of a training with a budget, or the regulariser has one, but not both"
            )
        names = [coded.name for coded in self.tensors]
        if state["names"] != names:
            raise ConfigurationError(
                f"the state is of {len(state['names'])} coded tensors, the regulariser of {len(names)}, or they have other names"
            )
        lines = sum(coded.block.all_lines() for coded in self.tensors)
        if len(state["levels"]) != lines:
            raise ConfigurationError(
                f"the state has levels of {len(state['levels'])} rows and columns, where the coded tensors have {lines}"
            )
        magnitude = self.magnitude().item()
        if not math.isclose(magnitude, state["magnitude"], rel_tol=_SAME_WEIGHTS):
            raise ConfigurationError(
                f"the weights sum up to a magnitude of {magnitude}, those that the state was saved with to "
                f"{state['magnitude']}: save weights in master_weights(), and load them before the state"
            )
        self.end()
        self.begun = state["begun"]
        self.models.restore(state["models"])
        self._lines.restore(state["levels"], state["rounded"])
        self.multiplier.peak = state["peak"]
        if self.budget is not None:
            self.budget.restore(state["budget"])
        if is_attached:
            self.begin_at(step)

    def code_length(self, step: int) -> torch.Tensor:
        """Bits per coded weight of what the loss sees now. All ranks call it together."""
        nothing = torch.zeros((), dtype=torch.float32, device=self._device)
        rounds = self.schedule.share_at(step) is not None
        components, steps = self.models.components(CLASSES if rounds else 1), self.models.steps()
        bits = torch.zeros((), dtype=torch.float64, device=self._device)
        for index, coded in enumerate(self.tensors):
            points = coded.parameter.local().clone()
            sums = passes.add_rate(
                coded.master,
                points,
                torch.zeros_like(points),
                nothing,
                passes.Model(index, components, steps, self.models.values),
                coded.block,
                self._lines.levels(index) if rounds else None,
                coded.largest,
            )
            bits += sums[0] / coded.parameter.replicas
        self._all_reduce(bits)
        return bits / self.count

    def magnitude(self) -> torch.Tensor:
        """Σ|w| over all coded weights, which tells whether they are those that a state is of."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for coded in self.tensors:
            shown = coded.master if coded.shows_points() else coded.parameter.local()
            total += shown.abs().sum(dtype=torch.float64) / coded.parameter.replicas
        self._all_reduce(total)
        return total

    def _begin(self) -> None:
        squares = torch.zeros(len(self.tensors), dtype=torch.float64, device=self._device)
        for index, coded in enumerate(self.tensors):
            local = coded.parameter.local()
            squares[index] = local.double().square().sum() / coded.parameter.replicas
        self._all_reduce(squares)
        scales = []
        for coded, square in zip(self.tensors, squares.tolist(), strict=True):
            if not math.isfinite(square):
                raise ConfigurationError(
                    f"parameter `{coded.name}` holds values that are not finite where its rate begins"
                )
            count, inputs = coded.parameter.tensor.numel(), coded.block.all_columns
            # That of a uniformly drawn layer, where all weights are zero.
            scales.append(math.sqrt(square / count) or 1 / math.sqrt(3 * inputs))
        self.models.begin(torch.tensor(scales, dtype=torch.float64, device=self._device), self._initial_step)
        self.begun = True

    def _add_over_ranks(self, step: int) -> None:
        """The sums of a step become those of all ranks, by one call."""
        for index, coded in enumerate(self.tensors):
            self._sums[index] /= coded.parameter.replicas
        if self.schedule.share_at(step) is None:
            self._all_reduce(self._sums)
            return
        everything = torch.cat((self._sums.flatten(), self._lines.of_split()))
        self._all_reduce(everything)
        sums, of_split = everything.tensor_split([self._sums.numel()])
        self._sums.copy_(sums.view_as(self._sums))
        self._lines.follow(of_split, self._sums[:, 6] > 0)

    def _show_points(self, step: int) -> None:
        """Parameters, which hold weights, get the points of a step."""
        share = self.schedule.share_at(step)
        steps = self.models.steps()
        self._lines.clear()
        for index, coded in enumerate(self.tensors):
            key = noise_key(self._seed, step, coded.at)
            local = coded.parameter.local()
            quantiser = passes.Quantiser(steps[index], share, key)
            lines = passes.quantise(local, coded.master, quantiser, coded.block)
            if lines is not None:
                rows, columns, coded.largest = lines
                self._lines.put(index, rows, columns)
            coded.version = local._version
        if share is not None and not self._lines.known:
            of_split = self._lines.of_split()
            if of_split.numel() > 0:
                self._all_reduce(of_split)
            self._lines.follow(of_split, torch.ones_like(self._sums[:, 0], dtype=torch.bool))

    def _steer(self, budget: Budget, multiplier: float | torch.Tensor, step: int) -> None:
        """Moves λ towards the budget."""
        if step == self.schedule.rounding_from > self.schedule.start:
            budget.break_trend()
        bits = self._sums[:, 0].sum() / self.count
        left = max(0, self.schedule.steps - step - 1)
        budget.step(bits, multiplier, left, (self._sums[:, 6] > 0).all())

    def _settle_master(self, coded: Coded) -> None:
        """The master is the weight of now, unless the parameter was changed while it holds a point, which is refused."""
        if coded.version >= 0 and not coded.shows_points():
            raise ConfigurationError(
                f"parameter `{coded.name}` was changed between steps, while it holds what the loss sees: change weights in "
                "`with regularizer.master_weights():`, or detach() the regulariser meanwhile"
            )
        # After a step that was left out for another optimizer, a parameter holds its weights.
        if coded.version < 0:
            coded.master.copy_(coded.parameter.local())

    def _current_prices(self) -> torch.Tensor:
        """λ/N of every tensor, times the weight of its group."""
        priced = [coded.group.weight / self.count for coded in self.tensors]
        if self._prices is None or priced != self._priced:
            self._priced = priced
            self._prices = torch.tensor(priced, dtype=torch.float64, device=self._device)
        return self._prices if self.budget is None else self._prices * self.budget.price()
