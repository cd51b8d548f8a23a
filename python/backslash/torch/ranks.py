"""What the ranks of a cluster do together with tensors and failures."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from backslash.torch.parameters import DTensor


def is_first(group: dist.ProcessGroup | None) -> bool:
    """Whether this is the rank that writes."""
    return not _distributed() or dist.get_rank(group) == 0


def of_first(result: Any, failure: Exception | None, group: dist.ProcessGroup | None) -> Any:
    """The result of the first rank on all of them, or its failure raised on all of them."""
    outcome = [result if failure is None else failure]
    if _distributed():
        dist.broadcast_object_list(outcome, group=group, group_src=0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, gathered from the ranks where it is sharded; all of them call it together."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The part of a whole tensor that this rank holds of one like it, without talking to others."""
    if not isinstance(like, DTensor):
        return tensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    for dimension, (extent, start) in enumerate(zip(shape, offset, strict=True)):
        # An empty shard may start behind the end.
        tensor = tensor.narrow(dimension, min(start, tensor.shape[dimension] - extent), extent)
    return tensor


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
