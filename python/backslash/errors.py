"""What can go wrong, by what a caller can do about it.

Errors of the operating system are those of Python: `FileNotFoundError`, `PermissionError`, and `FileExistsError` where a
file would be replaced without `overwrite=True`.
"""


class BackslashError(Exception):
    """Any error of this package."""


class CorruptFileError(BackslashError):
    """The file is damaged, cut short, or no `.bsl` file."""


class FutureVersionError(BackslashError):
    """The file has a format version that this build cannot read: a newer `backslash` can."""


class MemoryLimitError(BackslashError):
    """Reading would take more memory than `max_memory` allows: raise it if the file is trusted."""


class InvalidTensorError(BackslashError, ValueError):
    """A tensor, or the step for one, that a file cannot hold."""


class BudgetError(BackslashError, ValueError):
    """No file of these tensors is as small as was asked for."""


class ConfigurationError(BackslashError, ValueError):
    """A regulariser that cannot do what it is asked to, or on which the ranks of a cluster disagree."""
