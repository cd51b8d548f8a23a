"""The command line that tests compare with: $BACKSLASH_BIN, or target/release/backslash of this repository."""

import os
import pathlib

import pytest

_BUILT = pathlib.Path(__file__).parents[2] / "target" / "release" / "backslash"
PROGRAM = os.environ.get("BACKSLASH_BIN") or str(_BUILT)

needs_program = pytest.mark.skipif(
    "BACKSLASH_BIN" not in os.environ and not _BUILT.exists(),
    reason="no program to compare with: set BACKSLASH_BIN, or run cargo build --release",
)
