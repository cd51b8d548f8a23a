"""λ as a dual variable: driven by the gap between a forecast of the finished file and a number of bytes.

What is held against the budget is not the size now, which is not monotone in training, but that at the end: the code
length now, its trend, and what is left of the schedule. The progress of a training is counted in multiples of the peak
learning rate, because that is what weights and steps move by. The controller is that of the command line but for two
things: bytes follow from code lengths by a usual ratio instead of files on the way, and what is left of the schedule is
taken to fall linearly to zero from where the learning rate is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

# Share of the budget that is aimed at: a file above the budget loses about ten times what as much below it costs.
AIM = 0.985
# Time in which codes follow a price, in units of what the rate's learning rate moves a logarithm by 1 in; at most that share
# of the time with a rate.
_LAG, _LONGEST_LAG = 0.6, 0.3
# Times over which the level and its slope are averaged, and in which λ moves by what closes a gap, in lags.
_LEVEL, _SLOPE, _RESPONSE = 0.15, 0.5, 0.7
# The last of these towards the end, in times that are left, and the least, in lags.
_LAST_RESPONSE, _LEAST_RESPONSE = 0.5, 0.1
# −∂ln λ/∂ln R: the code length falls about as λ^(−⅓).
_ELASTICITY = 3.0
# Time in lags in which λ stays as it is, while steps widen and weights settle, and the longest, as a share of the time with
# a rate.
_HOLD, _LONGEST_HOLD = 1.0, 0.4
# Largest fall by the trend, in ln(code length), of what has settled.
_SETTLED = 0.05
# Bits per weight that codes still lose when weights come to rest, from where the learning rate has fallen to that share of its
# peak: so many for each unit of the time with a rate, as measured, and at most half of all bits.
_LAST_FALL, _LARGEST_LAST_FALL, _LAST_FALL_FROM = 3e-4, 0.15, 0.25
# Largest share of the time with a rate, in steps, that the level looks back: weights at rest are those of the file.
_LONGEST_LEVEL = 0.02
# Share of a trend that goes on.
_TRUST = 0.5
# Largest change by a trend in ln(code length), and largest gap that is acted upon at once.
_LARGEST_CHANGE, _LARGEST_GAP = 0.35, 0.5
# Bounds of ln λ: from what is hardly felt to what leaves nothing but zeros.
_LEAST_LOG_LAMBDA, _LARGEST_LOG_LAMBDA = -14.0, 3.0
# λ and bits per weight at which a small model has come to rest, for a first guess.
_KNOWN_LAMBDA, _KNOWN_BITS = 0.3, 1.0
# Bits per weight of codes whose step is the root mean square of the weights.
_BITS_OF_ONE_STEP = 2.0
# How far files end from the aim, as a share of it.
_USUAL_DEVIATION = 0.02
# Bytes of a file per bit of code length.
_BYTES_PER_BIT = 0.125


class Forecast(NamedTuple):
    """What the finished file is expected to be."""

    bytes: float
    """Bytes of the whole file at the end of the training, before `save` fits it to the budget."""
    deviation: float
    """How far it may be off, by how much the forecast has moved so far: one standard deviation."""
    budget: int
    """Bytes that it may have."""


class Budget:
    """The controller of one training; what changes is in tensors on the device of the weights.

    Args:
        budget: Most bytes of the file.
        fixed: Bytes that are no codes.
        coded: Weights in all coded tensors.
        learning_rate: That of ln Δ.
        device: Where the state is.
    """

    def __init__(
        self, budget: int, fixed: float, coded: int, learning_rate: float, device: torch.device
    ) -> None:
        self.budget = budget
        self._fixed = fixed
        self._coded = coded
        self._learning_rate = learning_rate
        # What the aim leaves for the codes, in bytes.
        self._room = max(1.0, AIM * budget - fixed)
        bits = 8 * self._room / coded
        guess = math.log(_KNOWN_LAMBDA) + _ELASTICITY * math.log(_KNOWN_BITS / bits)
        guess = min(max(guess, _LEAST_LOG_LAMBDA), _LARGEST_LOG_LAMBDA)
        # Steps of a large file are far from those of a small one, and follow a price slowly.
        self.initial_step_factor = 2.0 ** min(0.0, _BITS_OF_ONE_STEP - bits)
        unknown = math.nan
        start = {
            "time": 0.0,
            "total": unknown,
            "log_lambda": guess,
            "level": unknown,
            "slope": 0.0,
            "wander": 0.0,
            "forecast": unknown,
        }
        self._state = {key: torch.tensor(value, dtype=torch.float64, device=device) for key, value in start.items()}

    def price(self) -> torch.Tensor:
        """λ, in nats of loss per bit per weight."""
        return self._state["log_lambda"].exp()

    def break_trend(self) -> None:
        """The smoothed level starts anew: rounding does not cost what noise has cost."""
        self._state["level"] = torch.full_like(self._state["level"], math.nan)
        self._state["slope"] = torch.zeros_like(self._state["slope"])

    def step(
        self, bits: torch.Tensor, multiplier: float | torch.Tensor, left: int, taken: torch.Tensor
    ) -> None:
        """Takes note of a step at `multiplier` of the peak learning rate, at whose points codes have `bits` per weight.

        Args:
            bits: Bits per coded weight.
            multiplier: Of the peak learning rate.
            left: Steps that are left.
            taken: Whether the step was taken at all, as a tensor.
        """
        before = self._state
        device = bits.device
        multiplier = torch.as_tensor(multiplier, dtype=torch.float64).to(device).clamp(min=1e-9)
        time = before["time"] + multiplier
        left_time = 0.5 * left * multiplier
        total = torch.where(before["total"].isnan(), time + left_time, before["total"])
        lag = (_LONGEST_LAG * total).clamp(max=_LAG / self._learning_rate)

        fall = (_LAST_FALL * total).clamp(max=_LARGEST_LAST_FALL) * (multiplier / _LAST_FALL_FROM).clamp(max=1.0)
        value = torch.maximum(bits - fall, 0.5 * bits).clamp(min=1e-6).log()
        is_first = before["level"].isnan()
        longest = (_LONGEST_LEVEL * total).clamp(min=1.0)
        keep = (-torch.maximum(multiplier / (_LEVEL * lag), 1 / longest)).exp()
        level = torch.where(is_first, value, keep * before["level"] + (1 - keep) * value)
        keep_slope = (-multiplier / (_SLOPE * lag)).exp()
        slope = keep_slope * before["slope"] + (1 - keep_slope) * (level - before["level"]) / multiplier
        slope = torch.where(is_first, before["slope"], slope)

        change = _TRUST * slope * lag * (1 - (-left_time / lag).exp())
        is_settling = (change < -_SETTLED) & (time < _LONGEST_HOLD * total)
        change = change.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE)
        held = ((level + change).exp() * self._coded * _BYTES_PER_BIT).clamp(min=1.0)
        gap = (held / self._room).log()
        # What is left of the gap when λ has done its work.
        forecast = self._fixed + self._room * (gap * (-left_time / lag).exp()).exp()
        moved = (forecast - before["forecast"]).square() / multiplier
        wander = torch.where(
            before["forecast"].isnan(), before["wander"], keep * before["wander"] + (1 - keep) * moved
        )
        holds = is_settling | (time < torch.minimum(_HOLD * lag, _LONGEST_HOLD * total))
        # With little time left a price has to be found sooner.
        response = torch.minimum(torch.maximum(_LAST_RESPONSE * left_time, _LEAST_RESPONSE * lag), _RESPONSE * lag)
        moves = _ELASTICITY * gap.clamp(-_LARGEST_GAP, _LARGEST_GAP) * multiplier / response
        log_lambda = before["log_lambda"] + moves
        log_lambda = torch.where(holds, before["log_lambda"], log_lambda)
        after = {
            "time": time,
            "total": total,
            "log_lambda": log_lambda.clamp(_LEAST_LOG_LAMBDA, _LARGEST_LOG_LAMBDA),
            "level": level,
            "slope": slope,
            "wander": wander,
            "forecast": forecast,
        }
        self._state = {key: torch.where(taken, after[key], before[key]) for key in before}

    def forecast(self) -> Forecast:
        """What the file will be; before there is a rate that is what λ will be driven to. Waits for the device."""
        now = {key: value.item() for key, value in self._state.items()}
        if math.isnan(now["forecast"]):
            aim = AIM * self.budget
            return Forecast(aim, _USUAL_DEVIATION * aim, self.budget)
        # A forecast that wanders without memory strays by the root of the time that is left; λ pulls it back within the time
        # of its response.
        lag = min(_LAG / self._learning_rate, _LONGEST_LAG * now["total"])
        left = min(max(now["total"] - now["time"], 0.0), _RESPONSE * lag)
        return Forecast(now["forecast"], math.sqrt(now["wander"] * left), self.budget)

    def state(self) -> dict[str, float]:
        """Everything that changes."""
        return {key: value.item() for key, value in self._state.items()}

    def restore(self, state: dict[str, float]) -> None:
        """Takes up what `state` has returned."""
        for key, value in self._state.items():
            self._state[key] = torch.full_like(value, state[key])
