"""The method of the paper: the decoupled step of the released code of BackSlash (arXiv 2504.16968).

After every step of the optimizer each weight is pulled towards zero,

    θ ← θ − weight·ν·sign(θ)·(|θ|+ε)^(ν−1),

ν being the shape of a generalised Gaussian with the moments E[θ²]/E[|θ|]² of all weights together, by the nearest entry
of the published table.
"""

from __future__ import annotations

import torch

from backslash import _native
from backslash.torch.groups import Group
from backslash.torch.parameters import is_plain, values


def pull_all(
    groups: list[Group], shape: torch.Tensor, epsilon: float, skipped: torch.Tensor | None
) -> None:
    """Pulls the weights of all groups, with that shape."""
    for group in groups:
        strength = group.weight
        if skipped is not None:
            strength = torch.where(skipped.reshape(()).to(shape.device) == 0, strength, 0.0)
        for parameter in group.parameters:
            pull(parameter.local(), strength, shape, epsilon)


def pull(
    weights: torch.Tensor, strength: float | torch.Tensor, shape: torch.Tensor, epsilon: float
) -> None:
    """θ ← θ − strength·shape·sign(θ)·(|θ|+ε)^(shape−1), in place: one compiled pass where there is one for such weights."""
    if is_plain(weights, shape.float()) and not torch.compiler.is_compiling():
        arguments = values(weights), float(strength), shape.item(), epsilon
        _native.pull(torch.get_num_threads(), *arguments)
        torch.autograd.graph.increment_version(weights)
    else:
        pull_by_operations(weights, strength, shape, epsilon)


def pull_by_operations(
    weights: torch.Tensor, strength: float | torch.Tensor, shape: torch.Tensor, epsilon: float
) -> None:
    """As `pull`, for any device and type, in float32 at least."""
    if weights.dtype.itemsize < 4:
        wide = weights.float()
        pull_by_operations(wide, strength, shape, epsilon)
        weights.copy_(wide)
        return
    # A power by way of its logarithm takes an eighth of the time of pow on a CPU.
    force = weights.abs().add_(epsilon).log_().mul_(shape - 1).exp_().mul_(shape * strength)
    weights.addcmul_(force, weights.sign(), value=-1)
