"""NumPy arrays and PyTorch tensors to bytes with the name of a safetensors type, and back. PyTorch is never imported
for arrays of NumPy.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy

from backslash.errors import InvalidTensorError

Described = tuple[str, str, tuple[int, ...], numpy.ndarray]
"""Name, safetensors type, shape, and the bytes as a 1-dimensional uint8 array."""

# Names of types in NumPy (those of `ml_dtypes` among them) and in PyTorch.
_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def describe(name: str, tensor: Any) -> Described:
    """The bytes of a tensor, without a copy where it is contiguous and on the CPU."""
    if not isinstance(name, str):
        raise InvalidTensorError(f"the name {name!r} is no text")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor):
        return _describe_torch(name, tensor)
    if isinstance(tensor, (numpy.ndarray, numpy.generic)):
        return _describe_numpy(name, numpy.asarray(tensor))
    kind = type(tensor).__name__
    raise InvalidTensorError(
        f"tensor `{name}` is a {kind}; a NumPy array or a PyTorch tensor would be right"
    )


def _describe_numpy(name: str, array: numpy.ndarray) -> Described:
    dtype = _stored_type(name, array.dtype.name)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    elements = numpy.ascontiguousarray(array).reshape(-1)
    return name, dtype, array.shape, elements.view(numpy.uint8)


def _describe_torch(name: str, tensor: Any) -> Described:
    import torch

    dtype = _stored_type(name, str(tensor.dtype).removeprefix("torch."))
    if tensor.device.type == "meta":
        raise InvalidTensorError(f"tensor `{name}` is on the meta device, where it has no values")
    if hasattr(tensor, "full_tensor"):
        raise InvalidTensorError(f"tensor `{name}` is sharded: pass its full_tensor()")
    if tensor.layout is not torch.strided:
        raise InvalidTensorError(f"tensor `{name}` is sparse: pass its to_dense()")
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    elements = plain.reshape(-1).view(torch.uint8)
    return name, dtype, tuple(tensor.shape), elements.numpy()


def _stored_type(name: str, type_name: str) -> str:
    try:
        return _TYPES[type_name]
    except KeyError:
        raise InvalidTensorError(
            f"tensor `{name}` is of type {type_name}; a file holds {', '.join(_TYPES)}"
        ) from None


def to_numpy(
    name: str, dtype: str, shape: tuple[int, ...], elements: numpy.ndarray
) -> numpy.ndarray:
    """An array of a shape, on the memory of its elements."""
    if dtype.startswith("F8"):
        raise InvalidTensorError(
            f'tensor `{name}` is of type {dtype}, which NumPy does not have; use framework="torch"'
        )
    return elements.view(numpy.dtype(_NAMES[dtype])).reshape(shape)


def to_torch(dtype: str, shape: tuple[int, ...], elements: numpy.ndarray) -> Any:
    """A tensor of a shape, on the memory of its elements."""
    import torch

    return torch.from_numpy(elements).view(getattr(torch, _NAMES[dtype])).reshape(shape)
