"""The learning rate of an optimizer as a multiple of its peak."""

from __future__ import annotations

import torch


class Multiplier:
    """Follows the learning rate of the first group of parameters that has one.

    The peak is the largest rate so far, or what a scheduler has left in the group as `initial_lr` or `max_lr`.
    """

    def __init__(self) -> None:
        self.peak: float | torch.Tensor = 0.0

    def of(self, optimizer: torch.optim.Optimizer) -> float | torch.Tensor:
        """The rate of the step that is being taken over the peak; a tensor where the optimizer has it as one on a device."""
        group = next((group for group in optimizer.param_groups if "lr" in group), None)
        if group is None:
            return 1.0
        rate = group["lr"]
        if isinstance(rate, torch.Tensor) and rate.device.type == "cpu":
            rate = rate.item()
        known = max(float(group.get(key, 0.0)) for key in ("initial_lr", "max_lr"))
        if isinstance(rate, torch.Tensor):
            self.peak = rate.double().clamp(min=known).maximum(torch.as_tensor(self.peak, device=rate.device))
            return torch.where(self.peak > 0, rate / self.peak, 0.0)
        self.peak = max(float(self.peak), known, rate)
        return rate / self.peak if self.peak > 0 else 0.0
