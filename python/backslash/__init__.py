"""The smallest file of a language model.

`save_file`, `load_file` and `safe_open` have the shape of those of `safetensors`, with NumPy arrays or PyTorch tensors.
`backslash.torch` loads into PyTorch, and has the regulariser that trains for a small file.

    >>> import numpy, backslash, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.bsl"
    >>> weights = numpy.random.default_rng(0).normal(size=(64, 64)).astype(numpy.float32)
    >>> size = backslash.save_file({"layer.weight": weights}, path, bits_per_weight=3)
    >>> size.total <= 3 * 64 * 64 / 8
    True
    >>> backslash.load_file(path)["layer.weight"].shape
    (64, 64)
"""

from backslash._native import __version__
from backslash.errors import (
    BackslashError,
    BudgetError,
    ConfigurationError,
    CorruptFileError,
    FutureVersionError,
    InvalidTensorError,
    MemoryLimitError,
)
from backslash.files import load_file, safe_open, save_file
from backslash.inspection import Inspection, SizeSplit, TensorReport, inspect
from backslash.sizes import estimated_size, exact_size

__all__ = [
    "BackslashError",
    "BudgetError",
    "ConfigurationError",
    "CorruptFileError",
    "FutureVersionError",
    "Inspection",
    "InvalidTensorError",
    "MemoryLimitError",
    "SizeSplit",
    "TensorReport",
    "__version__",
    "estimated_size",
    "exact_size",
    "inspect",
    "load_file",
    "safe_open",
    "save_file",
]
