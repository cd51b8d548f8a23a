"""When there is a rate, when weights are rounded, and how many of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backslash.errors import ConfigurationError

# Share of the steps that round after which all weights are rounded.
ALL_ROUNDED = 0.8


@dataclass(frozen=True)
class Schedule:
    """Steps count from 0. Until `start` training is plain; from there on weights have noise of one step, and from
    `rounding_from` on they are rounded: `rounded_share` of them at first, all from four fifths of the way on.
    """

    steps: int | None
    """All steps of the training, where they are known."""
    start: int
    rounding_from: int
    rounded_share: float

    @classmethod
    def of(
        cls,
        steps: int | None,
        start: float,
        rounding_from: float,
        rounded_share: float,
    ) -> Schedule:
        """A schedule of step numbers (int) and shares of the steps (float).

        Raises:
            ConfigurationError: one does not fit, or is a share of steps whose number is not known.
        """
        if steps is not None and (not _is_integer(steps) or steps < 1):
            raise ConfigurationError(f"steps is {steps!r}; the number of steps of the training would be right")
        first = _step_number("start", start, steps)
        if steps is not None:
            first = min(first, steps - 1)
        rounding = max(first, _step_number("rounding_from", rounding_from, steps))
        if not 0 <= rounded_share <= 1:
            raise ConfigurationError(f"rounded_share is {rounded_share}; it must be from 0 to 1")
        if rounded_share < 1 and steps is None:
            raise ConfigurationError("rounded_share rises with the steps of the training: give their number as steps")
        return cls(steps, first, rounding, rounded_share)

    def share_at(self, step: int) -> float | None:
        """Share of the weights that are rounded at a step; None where they have noise."""
        if step < self.rounding_from:
            return None
        if self.steps is None or self.rounded_share >= 1:
            return 1.0
        rounding = max(0, self.steps - self.rounding_from)
        way = (step - self.rounding_from) / max(1, int(ALL_ROUNDED * rounding))
        return self.rounded_share + (1 - self.rounded_share) * min(way, 1.0)


def _step_number(name: str, value: float, steps: int | None) -> int:
    if _is_integer(value) and value >= 0:
        return int(value)
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} is {value!r}; a step number (int) or a share of the steps (float) would be right")
    if value == 0:
        return 0
    if steps is None:
        raise ConfigurationError(f"{name} is {value}, a share of the steps: give their number as steps, or a step number")
    return math.floor(value * steps + 0.5)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
