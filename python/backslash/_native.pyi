"""The compiled part: what `backslash.files` and `backslash.inspection` are made of."""

from typing import Any

import numpy

__version__: str
DEFAULT_MAX_MEMORY: int

_Tensor = tuple[str, str, tuple[int, ...], numpy.ndarray]

def save_by_factor(tensors: list[_Tensor], factor: float, options: Any) -> dict[str, int]: ...
def save_by_steps(
    tensors: list[_Tensor], steps: dict[str, float], options: Any
) -> dict[str, int]: ...
def save_by_scaled_steps(
    tensors: list[_Tensor], steps: dict[str, float], budget: int, options: Any
) -> dict[str, int]: ...
def save_by_budget(
    tensors: list[_Tensor], budget: int | None, bits_per_weight: float | None, options: Any
) -> dict[str, int]: ...
def inspect(
    path: str, max_memory: int
) -> tuple[dict[str, int], list[dict[str, Any]], list[tuple[str, int, int]]]: ...
def moment_ratio(shape: float) -> float: ...

# Passes over weights, each on as many threads as it is told. Arrays have one dimension and are float32.
_Model = tuple[float, float, list[float]]

def add_noise(
    threads: int, weights: numpy.ndarray, masters: numpy.ndarray, block: Any, quantiser: Any
) -> None: ...
def round_weights(
    threads: int, weights: numpy.ndarray, masters: numpy.ndarray, block: Any, quantiser: Any
) -> tuple[numpy.ndarray, numpy.ndarray, float]: ...
def add_rate_of_noise(
    threads: int,
    masters: numpy.ndarray,
    points: numpy.ndarray,
    gradient: numpy.ndarray,
    model: _Model,
    weight_of_bit: float,
) -> list[float]: ...
def add_rate_of_codes(
    threads: int,
    masters: numpy.ndarray,
    points: numpy.ndarray,
    gradient: numpy.ndarray,
    model: _Model,
    weight_of_bit: float,
    row_levels: numpy.ndarray,
    column_levels: numpy.ndarray,
    largest: float,
) -> list[float]: ...
def moments(threads: int, weights: numpy.ndarray) -> tuple[float, float]: ...
def pull(
    threads: int, weights: numpy.ndarray, weight: float, shape: float, epsilon: float
) -> None: ...

class Reader:
    def __new__(cls, path: str, max_memory: int) -> Reader: ...
    def tensors(self) -> list[tuple[str, list[int], str | None]]: ...
    def metadata(self) -> list[tuple[str, bytes]]: ...
    def tensor(self, name: str, keep_bf16: bool) -> tuple[str, numpy.ndarray]: ...
    def load(self, keep_bf16: bool, progress: Any) -> list[tuple[str, numpy.ndarray]]: ...
    def close(self) -> None: ...
