"""Parameters of a regulariser: whole, replicated or sharded, each distinct element counted once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from backslash import _native
from backslash.errors import ConfigurationError

if dist.is_available():
    from torch.distributed.tensor import DTensor
else:  # A build of PyTorch without distributed training has no sharded tensors either.

    class DTensor:  # type: ignore[no-redef]
        pass


@dataclass(frozen=True)
class Parameter:
    """A parameter with the number of ranks that hold each of its elements."""

    name: str
    tensor: torch.Tensor
    replicas: int

    def local(self) -> torch.Tensor:
        """What this rank holds of it; in-place changes are changes of the parameter."""
        return self.tensor.to_local() if isinstance(self.tensor, DTensor) else self.tensor

    def fingerprint(self) -> tuple[str, tuple[int, ...], str]:
        """What all ranks have to agree on."""
        return self.name, tuple(self.tensor.shape), str(self.tensor.dtype)


def named(parameters: Iterable[Any], prefix: str) -> list[tuple[str, torch.Tensor]]:
    """Parameters with their names, or with their positions after `prefix` where they have none."""
    if isinstance(parameters, torch.Tensor):
        parameters = [parameters]
    pairs = []
    for index, entry in enumerate(parameters):
        name, tensor = entry if isinstance(entry, tuple) else (f"{prefix}{index}", entry)
        if not isinstance(tensor, torch.Tensor):
            raise ConfigurationError(
                f"{name} is a {type(tensor).__name__}; a parameter, or a pair of name and parameter, would be right"
            )
        pairs.append((name, tensor))
    return pairs


def checked(name: str, tensor: torch.Tensor, ranks: int) -> Parameter:
    """A parameter that can be regularised by `ranks` ranks.

    Raises:
        ConfigurationError: it cannot, with the reason.
    """
    if type(tensor).__name__ == "FlatParameter":
        raise ConfigurationError(
            f"parameter `{name}` is a flat one of FullyShardedDataParallel: use torch.distributed.fsdp.fully_shard"
        )
    if tensor.device.type == "meta":
        raise ConfigurationError(
            f"parameter `{name}` is on the meta device: give it values first (Module.to_empty and an initialisation)"
        )
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
        raise ConfigurationError(
            f"parameter `{name}` is of type {tensor.dtype}; float32, float64, bfloat16 or float16 would be right"
        )
    if tensor.layout is not torch.strided:
        raise ConfigurationError(f"parameter `{name}` is sparse; a dense one would be right")
    return Parameter(name, tensor, _replicas(name, tensor, ranks))


def _replicas(name: str, tensor: torch.Tensor, ranks: int) -> int:
    if not isinstance(tensor, DTensor):
        return ranks
    mesh, placements = tensor.device_mesh, tensor.placements
    if mesh.size() != ranks:
        raise ConfigurationError(
            f"parameter `{name}` is spread over {mesh.size()} ranks, but sums are taken over {ranks}: pass process_group "
            "with the ranks that hold it, all replicas included"
        )
    if any(placement.is_partial() for placement in placements):
        raise ConfigurationError(
            f"parameter `{name}` is a sum over ranks that has not been taken: redistribute it"
        )
    sizes = (mesh.size(dim) for dim, placement in enumerate(placements) if placement.is_replicate())
    return math.prod(sizes)


def absolute_and_square_sums(
    parameters: Iterable[Parameter], device: torch.device
) -> torch.Tensor:
    """(Σ|w|, Σw²) over what this rank holds, each element divided by the number of its replicas, as a tensor of 2 in
    float64: the sum over all ranks is that of all distinct elements.
    """
    by_replicas: dict[int, list[torch.Tensor]] = {}
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for parameter in parameters:
        local = parameter.local()
        if local.numel() == 0:
            continue
        if is_plain(local) and not torch.compiler.is_compiling():
            moments = _native.moments(torch.get_num_threads(), values(local))
            sums += torch.tensor(moments, dtype=torch.float64) / parameter.replicas
        else:
            by_replicas.setdefault(parameter.replicas, []).append(local)
    for replicas, shards in by_replicas.items():
        absolute = torch.stack(torch._foreach_norm(shards, 1, torch.float64)).sum()
        square = torch.stack(torch._foreach_norm(shards, 2, torch.float64)).square().sum()
        sums += torch.stack((absolute, square)) / replicas
    return sums


def is_plain(*tensors: torch.Tensor) -> bool:
    """Whether tensors are what the compiled passes take: contiguous, in float32 and in the memory of the host."""
    return all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype is torch.float32
        and tensor.is_contiguous()
        for tensor in tensors
    )


def values(tensor: torch.Tensor) -> Any:
    """The memory of a plain tensor, as an array of one dimension."""
    return tensor.detach().reshape(-1).numpy()
