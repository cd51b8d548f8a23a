"""Training for a small file, beside any optimizer."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from backslash.errors import ConfigurationError
from backslash.inspection import SizeSplit
from backslash.torch import saving
from backslash.torch.bits import Bits, Forecast, Schedule
from backslash.torch.entropy import code_entropy
from backslash.torch.groups import common_device, groups_of, warn_of_short_types
from backslash.torch.parameters import Parameter, absolute_and_square_sums
from backslash.torch.pull import pull_all
from backslash.torch.ranks import is_distributed
from backslash.torch.shape import ShapeTable

PUBLISHED_STEP = 2.0**-8


class RateRegularizer:
    """Makes weights cheap in a file, beside any optimizer.

        regularizer = RateRegularizer(model.named_parameters(), weight=1e-6).attach(optimizer)

    The method "backslash" is the decoupled step of the released code of BackSlash (arXiv 2504.16968): after every step of the
    optimizer each weight is pulled towards zero, θ ← θ − weight·ν·sign(θ)·(|θ|+ε)^(ν−1), with ν the shape of a generalised
    Gaussian that fits all weights. The learning rate does not multiply the pull.

    The method "bits" trains for loss + weight·R, R being the mean code length in bits of the weights that a file has codes of:

        regularizer = RateRegularizer(model.named_parameters(), weight=0.1, method="bits", steps=10_000).attach(optimizer)
        ...
        regularizer.save("model.bsl")

    Until the step `start` training is plain. From then on each coded tensor has a step Δ and a probability model, which are
    learned along, and between the steps of the optimizer its parameter holds what the loss is to see: weights with noise of
    one step until `rounding_from`, and then the multiples of Δ that the file gives back. The optimizer moves the weights
    themselves, which `master_weights` shows, with the gradient at those points. What has to happen to gradients, as clipping,
    comes before `optimizer.step()`, or in its closure; the step adds that of the rate.

    Made of tensors and sums alone, a step asks the device for nothing. Where `torch.distributed` has been initialised the sums
    of all ranks are added, by one all-reduce per step: of two numbers for "backslash", of seven per tensor for "bits", and with
    these, while weights are rounded, of one per row and column of what is sharded. Codes are priced by what these say of the
    step before, but at the first step that rounds, which adds its own. That is right under `DistributedDataParallel`, `fully_shard`,
    `parallelize_module` and any placement of a `DTensor` but partial ones; each distinct element counts once, and noise
    depends on where an element is in its tensor. Make it after the model has been wrapped and on every rank: it compares what
    it is told among them.

    Args:
        parameters: Parameters, pairs of name and parameter, or groups: dictionaries with "params" and, optionally,
            "weight". A parameter that comes twice in a group, as tied ones do, counts once.
        weight: Of the groups that have none of their own. "backslash": the paper's λ/N, in units of the weights per step.
            "bits": λ, in nats of loss per bit per weight; with a budget, where λ is found on the way, a factor on it, 1 by
            default.
        method: "backslash" or "bits".
        epsilon: "backslash": ε, which keeps the pull finite at zero; 1 in the released code.
        steps: "bits": steps of the optimizer in the whole training, where other arguments are shares of it.
        start: "bits": the step from which on there is a rate and a quantiser, as a number (int) or a share (float) of `steps`.
        rounding_from: "bits": the step from which on weights are rounded, likewise; before, noise stands for it.
        rounded_share: "bits": share of the weights that the loss sees rounded at the first step that rounds, another draw at
            each step; it rises to all of them over four fifths of the steps from there.
        initial_step: "bits": Δ at the start, in units of the root mean square of a tensor.
        learning_rate: "bits": that of ln Δ and of the models, at the peak of the optimizer's, whose schedule it follows.
        seed: "bits": of the noise.
        budget: "bits": most bytes of the finished file, in the place of `weight`; needs `steps`. It holds for a file of the
            regularised parameters alone.
        process_group: The ranks over which the parameters are spread and replicated; all, if None.

    Raises:
        ConfigurationError: an argument does not fit, a parameter cannot be regularised or is in two groups, or ranks disagree.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        weight: float | None = None,
        *,
        method: str = "backslash",
        epsilon: float = 1.0,
        steps: int | None = None,
        start: float = 0.6,
        rounding_from: float = 0.6,
        rounded_share: float = 1.0,
        initial_step: float = 1.0,
        learning_rate: float = 0.02,
        seed: int = 0,
        budget: int | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if method not in ("backslash", "bits"):
            raise ConfigurationError(f'method is {method!r}; there are "backslash" and "bits"')
        _check_positive("epsilon", epsilon)
        _check_positive("initial_step", initial_step)
        _check_positive("learning_rate", learning_rate)
        if budget is not None:
            _check_budget(budget, weight, steps, method)
            weight = 1.0
        self.method = method
        self.epsilon = epsilon
        self.steps = 0
        """Steps taken."""
        self._process_group = process_group
        self._ranks = dist.get_world_size(process_group) if is_distributed() else 1
        self.groups = groups_of(parameters, weight, self._ranks)
        everything = self._parameters()
        self._device = common_device(everything)
        self._count = sum(parameter.tensor.numel() for parameter in everything)
        self._table = ShapeTable(self._device)
        self._handles: list[Any] = []
        self._bits: Bits | None = None
        if method == "bits":
            self._bits = Bits(
                self.groups,
                Schedule.of(steps, start, rounding_from, rounded_share),
                initial_step=initial_step,
                learning_rate=learning_rate,
                seed=seed,
                budget=budget,
                device=self._device,
                all_reduce=self._all_reduce,
            )
        warn_of_short_types(everything)
        self._refuse_disagreement((method, epsilon, initial_step, learning_rate, seed, budget, self._schedule()))

    def attach(self, *optimizers: torch.optim.Optimizer) -> RateRegularizer:
        """Acts at every step of these optimizers, which together hold all regularised parameters and step in this order.

        Where there is a rate in bits from the start, parameters hold what the loss is to see from now on: load weights before,
        or in `master_weights`.

        Raises:
            ConfigurationError: they do not, or it is attached already.
        """
        if self._handles:
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
                'of them have stepped, with the method "backslash"'
            )
        if self._bits is not None:
            with torch.no_grad():
                self._bits.begin_at(self.steps)
            self._handles = [o.register_step_pre_hook(self._before_step) for o in optimizers]
        self._handles.append(optimizers[-1].register_step_post_hook(self._after_step))
        return self

    @torch.no_grad()
    def detach(self) -> None:
        """Ends what `attach` began; parameters hold their weights again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._bits is not None:
            self._bits.end()

    @torch.no_grad()
    def step(self, *, skipped: torch.Tensor | None = None) -> None:
        """Pulls all weights once: for loops that do not `attach`. All ranks call it together.

        Args:
            skipped: A tensor of one element that is not zero where the optimizer has left out its step.

        Raises:
            ConfigurationError: the method is "bits", which has something to do before the step of an optimizer too.
        """
        if self._bits is not None:
            raise ConfigurationError('the method "bits" acts before and after a step of an optimizer: attach() it')
        pull_all(self.groups, self._fitted_shape(), self.epsilon, skipped)
        self.steps += 1

    @contextlib.contextmanager
    def master_weights(self) -> Iterator[None]:
        """Parameters hold the weights that the optimizer moves, as for a checkpoint; all ranks enter and leave together.

        What they hold at the end is what training goes on with. Without a rate in bits nothing changes.
        """
        if self._bits is None:
            yield
            return
        # Not around the body, which may want gradients.
        shown = self._bits.master_weights(lambda: self.steps)
        with torch.no_grad():
            shown.__enter__()
        try:
            yield
        finally:
            with torch.no_grad():
                shown.__exit__(None, None, None)

    @torch.no_grad()
    def shape(self) -> float:
        """ν of all parameters as they are now. All ranks call it together; it waits for the device."""
        return self._fitted_shape().item()

    @torch.no_grad()
    def bits(self, step: float | None = None) -> float | None:
        """An estimate of what the weights take, in bits per weight; the size is what `save` returns. All ranks call it
        together; it waits for the device.

        Args:
            step: With a number, the entropy of round(w/step) over all parameters as they are: about what an entropy coder
                with one table takes. None is 2^-8 with the method "backslash", as in the paper; with "bits" it is the code
                length under the models of what the loss sees now, per coded weight, or None where there is no rate yet.
        """
        if step is None and self._bits is not None:
            if not self._bits.is_active():
                return None
            return self._bits.code_length(self.steps).item()
        step = PUBLISHED_STEP if step is None else step
        return code_entropy(self._parameters(), step, self._device, self._all_reduce)

    @torch.no_grad()
    def learned_steps(self) -> dict[str, float]:
        """Δ of every coded tensor, by name, as `backslash.save_file` takes them; it waits for the device.

        Raises:
            ConfigurationError: the method learns none, or its rate has not begun.
        """
        if self._bits is None or not self._bits.begun:
            raise ConfigurationError('steps are known with the method "bits", once its rate has begun')
        steps = self._bits.models.steps().tolist()
        return {coded.name: step for coded, step in zip(self._bits.tensors, steps, strict=True)}

    @torch.no_grad()
    def forecast(self) -> Forecast:
        """What the finished file is expected to be, where there is a budget; it waits for the device.

        Raises:
            ConfigurationError: there is none.
        """
        if self._bits is None or self._bits.budget is None:
            raise ConfigurationError("there is no forecast without a budget")
        return self._bits.budget.forecast()

    @torch.no_grad()
    def save(
        self,
        path: str | os.PathLike[str],
        tensors: Mapping[str, torch.Tensor] | None = None,
        **options: Any,
    ) -> SizeSplit:
        """Writes a file of the weights; with the method "bits" on the grid that training has seen. All ranks call it
        together, and the first of them writes.

        Args:
            path: The file.
            tensors: What else belongs into the file, as buffers and parameters that are not regularised.
            options: Those of `backslash.save_file`. With the method "bits" steps are the learned ones, which a budget multiplies
                by what lets the file fit, unless their file has 98 to 100 % of it.

        Raises:
            ConfigurationError: the rate has not begun, or a name is there twice.
            BackslashError, OSError: as `backslash.save_file`.
        """
        if self._bits is not None:
            options = {"steps": self.learned_steps(), **options}
            if self._bits.budget is not None:
                options.setdefault("budget", self._bits.budget.budget)
        with self.master_weights():
            return saving.save(path, self._parameters(), tensors or {}, self._process_group, options)

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside the weights, the same on all ranks, which call it together. Save the weights
        in `master_weights`.
        """
        state = {
            "method": self.method,
            "epsilon": self.epsilon,
            "weights": [group.weight for group in self.groups],
            "steps": self.steps,
        }
        if self._bits is not None:
            state["bits"] = self._bits.state()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` has returned, once parameters hold the weights of that time. All ranks call it together.

        Raises:
            ConfigurationError: it is that of another method, of other groups or tensors, something is missing, or the
                weights are not those that it was saved with.
        """
        missing = [key for key in ("method", "epsilon", "weights", "steps") if key not in state]
        if not missing and self._bits is not None and state["method"] == self.method and "bits" not in state:
            missing = ["bits"]
        if missing:
            raise ConfigurationError(f"the state has no `{missing[0]}`; what state_dict() returns would be right")
        if state["method"] != self.method or len(state["weights"]) != len(self.groups):
            raise ConfigurationError(
                f"the state is of method {state['method']!r} with {len(state['weights'])} groups, the regulariser of "
                f"{self.method!r} with {len(self.groups)}"
            )
        if self._bits is not None:
            self._bits.restore(state["bits"], state["steps"], is_attached=bool(self._handles))
        self.epsilon, self.steps = state["epsilon"], state["steps"]
        for group, weight in zip(self.groups, state["weights"], strict=True):
            group.weight = weight

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        # The first argument is the optimizer itself.
        closure = kwargs.get("closure") if len(args) < 2 else args[1]
        if closure is None:
            self._bits.before_step(optimizer, self.steps)
            return None
        return args[:1], {**kwargs, "closure": self._with_rate(closure, optimizer)}

    def _with_rate(self, closure: Callable[[], Any], optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        """A closure of an optimizer, which makes the gradients, and then what comes before the step."""
        evaluated = False

        def with_rate() -> Any:
            nonlocal evaluated
            if evaluated:
                raise ConfigurationError(
                    f"{type(optimizer).__name__} evaluates its closure more than once in a step: the method \"bits\" adds the "
                    "rate to the gradients of one evaluation"
                )
            evaluated = True
            loss = closure()
            with torch.no_grad():
                self._bits.before_step(optimizer, self.steps)
            return loss

        return with_rate

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._bits is None:
            # Optimizers that look for infinities themselves step over a batch without telling anybody else.
            self.step(skipped=getattr(optimizer, "found_inf", None))
            return
        self._bits.after_step(optimizer, self.steps)
        self.steps += 1

    def _parameters(self) -> list[Parameter]:
        return [parameter for group in self.groups for parameter in group.parameters]

    def _schedule(self) -> Schedule | None:
        return None if self._bits is None else self._bits.schedule

    def _fitted_shape(self) -> torch.Tensor:
        sums = absolute_and_square_sums(self._parameters(), self._device)
        self._all_reduce(sums)
        return self._table.of_sums(sums, self._count)

    def _all_reduce(self, tensor: torch.Tensor, operation: Any = None) -> None:
        if self._ranks > 1:
            operation = dist.ReduceOp.SUM if operation is None else operation
            dist.all_reduce(tensor, operation, group=self._process_group)

    def _refuse_disagreement(self, settings: Any) -> None:
        if self._ranks == 1:
            return
        weights = [group.weight for group in self.groups]
        mine = (settings, weights, [p.fingerprint() for p in self._parameters()])
        all_ranks: list[Any] = [None] * self._ranks
        dist.all_gather_object(all_ranks, mine, group=self._process_group)
        different = [rank for rank, theirs in enumerate(all_ranks) if theirs != all_ranks[0]]
        if different:
            raise ConfigurationError(
                f"rank {different[0]} has another regulariser than rank 0: method, settings, weights and the names, shapes "
                "and types of the parameters must be the same on all ranks"
            )


def _check_budget(budget: int, weight: float | None, steps: int | None, method: str) -> None:
    if method != "bits":
        raise ConfigurationError('budget is for the method "bits"')
    if weight is not None:
        raise ConfigurationError("weight and budget are given; only one can say what a bit costs")
    if steps is None:
        raise ConfigurationError("a budget is for the end of the steps of the training: give their number as steps")
    _check_positive("budget", budget)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} is {value}; it must be a positive number")
