"""What the ranks of a cluster do together with tensors and failures."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from backslash.torch.parameters import DTensor


def is_distributed() -> bool:
    """Whether there are ranks to talk to."""
    return dist.is_available() and dist.is_initialized()


def is_first(group: dist.ProcessGroup | None) -> bool:
    """Whether this is the rank that writes."""
    return not is_distributed() or dist.get_rank(group) == 0


def of_first(result: Any, failure: Exception | None, group: dist.ProcessGroup | None) -> Any:
    """The result of the first rank on all of them, or its failure raised on all of them."""
    outcome = [result if failure is None else failure]
    if is_distributed():
        dist.broadcast_object_list(outcome, group=group, group_src=0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, gathered from the ranks where it is sharded; all of them call it together."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Copies whole values into a tensor, of a sharded one the part that this rank holds, without talking to others."""
    if not isinstance(tensor, DTensor):
        tensor.copy_(values)
        return
    shape, offset = local_shape_and_offset(tensor)
    for dimension, (extent, start) in enumerate(zip(shape, offset, strict=True)):
        # An empty shard may start behind the end.
        values = values.narrow(dimension, min(start, values.shape[dimension] - extent), extent)
    tensor.to_local().copy_(values)


def local_shape_and_offset(tensor: DTensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the part of a sharded tensor that this rank holds, and where that begins in the whole."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(shape), tuple(offset)
