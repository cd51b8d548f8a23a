"""Tensors to files and back, in the manner of `safetensors`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import numpy

from backslash import _native, _tensors
from backslash.errors import ConfigurationError
from backslash.inspection import SizeSplit

Path = str | os.PathLike[str]
Progress = Callable[[int, int | None, str], None]
"""Called with what is done, of how much (None where that is not known), and what is being worked on."""

DEFAULT_RELATIVE_STEP = 0.5
"""Step over the root mean square of a tensor where nothing is asked for: that of the command line."""


class Options(NamedTuple):
    """Where a file goes, and how."""

    path: str
    metadata: dict[str, bytes]
    fast: bool
    overwrite: bool
    progress: Progress | None


class Size(NamedTuple):
    """A largest file, in one of two ways."""

    budget: int | None
    bits_per_weight: float | None


def save_file(
    tensors: Mapping[str, Any],
    path: Path,
    *,
    steps: float | Mapping[str, float] | None = None,
    bits_per_weight: float | None = None,
    budget: int | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    effort: str = "smallest",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SizeSplit:
    """Quantises and codes tensors into one file, and tells where its bytes go.

    The file is that of `backslash compress` for a safetensors file with the same tensors, byte for byte. Matrices of float32,
    float16 and bfloat16 are quantised; small and one-dimensional tensors of these types are rounded to bfloat16; tensors
    of any other type, float64 among them, are kept bit for bit. The file has its name once it is complete.

    At most one of these says how large the file becomes, but for steps by name that a budget scales; without any, `steps` is
    0.5:

    Args:
        tensors: NumPy arrays or PyTorch tensors of any shape and strides, by name. They must not be written to meanwhile.
        path: The file to write.
        steps: A number: the step of each matrix over its root mean square, to the nearest code. A mapping: the steps
            themselves, by name, for weights whose training has seen multiples of them; with `budget` they are multiplied by
            one factor, the least with which the file fits, unless their own file has 98 to 100 % of it.
        bits_per_weight: Largest file, in bits for each float of `tensors`.
        budget: Largest file, in bytes. As with `bits_per_weight` steps are searched, and codes chosen along a trellis.
        metadata: Values that go along, by key. Text is stored as UTF-8.
        effort: "smallest", or "fast" for a file that is written and read in a fraction of the time and is a few percent
            larger.
        overwrite: Replace the file if there is one.
        progress: Called with (done, total or None, what) on the way. What it raises ends the work.

    Raises:
        InvalidTensorError: a tensor is not finite, on the meta device, or of a type that has no place in a file, or a
            step does not fit.
        BudgetError: no file is as small as that.
        FileExistsError, OSError: the file cannot be written.
    """
    by_name = isinstance(steps, Mapping)
    goals = {} if by_name and bits_per_weight is None else {"steps": steps}
    _refuse_more_than_one(**goals, bits_per_weight=bits_per_weight, budget=budget)
    given = [_tensors.describe(name, tensor) for name, tensor in tensors.items()]
    options = checked_options(path, metadata, effort, overwrite, progress)
    _check_positive("budget", budget)
    _check_positive("bits_per_weight", bits_per_weight)
    if by_name and budget is not None:
        split = _native.save_by_scaled_steps(given, dict(steps), budget, options)
    elif by_name:
        split = _native.save_by_steps(given, dict(steps), options)
    elif budget is not None or bits_per_weight is not None:
        split = _native.save_by_budget(given, Size(budget, bits_per_weight), options)
    else:
        split = _native.save_by_factor(given, checked_factor(steps), options)
    return SizeSplit(**split)


def load_file(
    path: Path,
    *,
    max_memory: int = _native.DEFAULT_MAX_MEMORY,
    progress: Progress | None = None,
) -> dict[str, numpy.ndarray]:
    """Reads all tensors of a file as NumPy arrays; `backslash.torch.load_file` is the same for PyTorch.

    Every checksum and the hash of the file are checked. Quantised tensors come as float32, and so do those in bfloat16, for
    which NumPy has no type; all others have the type they were saved with.

    Args:
        path: The file.
        max_memory: Most bytes that the tensors may take; checked before they are decoded.
        progress: Called with (weights done, weights in all, name) after each tensor, from any thread.

    Raises:
        CorruptFileError, FutureVersionError: the file cannot be read.
        MemoryLimitError: the tensors need more than `max_memory`.
        OSError: the operating system refused.
    """
    with safe_open(path, max_memory=max_memory) as file:
        return file.get_tensors(progress=progress)


class safe_open:
    """An open file, from which single tensors are read; header and directory have been checked.

        with safe_open("model.bsl", framework="torch", device="cuda") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)

    Args:
        path: The file.
        framework: "numpy" or "np", "torch" or "pt": what tensors are read as.
        device: Where PyTorch puts them.
        max_memory: Most bytes that one read may take.

    Raises:
        CorruptFileError, FutureVersionError, MemoryLimitError, OSError: as `load_file`.
    """

    def __init__(
        self,
        path: Path,
        framework: str = "numpy",
        device: Any = "cpu",
        *,
        max_memory: int = _native.DEFAULT_MAX_MEMORY,
    ) -> None:
        if framework not in ("numpy", "np", "torch", "pt"):
            raise ConfigurationError(f'framework is {framework!r}; it is "numpy" or "torch"')
        self._torch = framework in ("torch", "pt")
        self._device = device
        self._reader = _native.Reader(os.fspath(path), max_memory)
        self._shapes = {name: tuple(shape) for name, shape, _ in self._reader.tensors()}

    def keys(self) -> list[str]:
        """Names of the tensors, in increasing order."""
        return list(self._shapes)

    def metadata(self) -> dict[str, bytes]:
        """The metadata, by key."""
        return dict(self._reader.metadata())

    def get_shape(self, name: str) -> tuple[int, ...]:
        """Dimensions of a tensor, which is not read.

        Raises:
            KeyError: there is none of that name.
        """
        return self._shapes[name]

    def get_tensor(self, name: str) -> Any:
        """Reads one tensor, with the types of `load_file`; its own checksums are checked.

        Raises:
            KeyError: there is none of that name.
            CorruptFileError, MemoryLimitError, OSError: as `load_file`.
        """
        dtype, elements = self._reader.tensor(name, self._torch)
        return self._finished(name, dtype, elements)

    def get_tensors(self, progress: Progress | None = None) -> dict[str, Any]:
        """Reads all tensors on all threads, as `load_file` does."""
        loaded = self._reader.load(self._torch, progress)
        return {
            name: self._finished(name, dtype, elements)
            for name, (dtype, elements) in zip(self._shapes, loaded, strict=True)
        }

    def close(self) -> None:
        """Lets go of the file."""
        self._reader.close()

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _finished(self, name: str, dtype: str, elements: numpy.ndarray) -> Any:
        shape = self._shapes[name]
        if self._torch:
            return _tensors.to_torch(dtype, shape, elements).to(self._device)
        return _tensors.to_numpy(name, dtype, shape, elements)


def checked_options(
    path: Path,
    metadata: Mapping[str, str | bytes] | None = None,
    effort: str = "smallest",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Options:
    """What all ways of saving are told.

    Raises:
        ConfigurationError: there is no such effort.
    """
    if effort not in ("smallest", "fast"):
        raise ConfigurationError(f'effort is {effort!r}; it is "smallest" or "fast"')
    encoded = {
        key: value.encode() if isinstance(value, str) else bytes(value)
        for key, value in (metadata or {}).items()
    }
    return Options(os.fspath(path), encoded, effort == "fast", overwrite, progress)


def checked_factor(steps: float | None) -> float:
    """Steps over the root mean square of their tensors.

    Raises:
        ConfigurationError: it is not positive.
    """
    _check_positive("steps", steps)
    return DEFAULT_RELATIVE_STEP if steps is None else steps


def checked_size(budget: int | None, bits_per_weight: float | None) -> Size:
    """A size that has to be given, once.

    Raises:
        ConfigurationError: there is none, or two, or it is not positive.
    """
    _refuse_more_than_one(budget=budget, bits_per_weight=bits_per_weight)
    if budget is None and bits_per_weight is None:
        raise ConfigurationError("no size is given: pass budget=bytes or bits_per_weight=bits")
    _check_positive("budget", budget)
    _check_positive("bits_per_weight", bits_per_weight)
    return Size(budget, bits_per_weight)


def _refuse_more_than_one(**goals: Any) -> None:
    given = [name for name, value in goals.items() if value is not None]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} are given; only one can say how large the file is")


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} is {value}; it must be a positive number")
