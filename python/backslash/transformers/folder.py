"""Models as folders whose weights are one `.bsl` file."""

from __future__ import annotations

import copy
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable
from typing import Any

import torch
import transformers

import backslash.torch
from backslash import _native, _tensors
from backslash.errors import ConfigurationError, InvalidTensorError
from backslash.files import Progress, Size, checked_options, checked_size, save_file
from backslash.inspection import SizeSplit
from backslash.transformers.calibration import Calibration, calibrate
from backslash.transformers.weights import stored_tensors

WEIGHTS = "model.bsl"
"""The file with the weights in a folder."""
CALIBRATION = "calibration.safetensors"
"""The file with what was learned on the texts."""


def compress_model(
    model: Any,
    tokenizer: Any,
    calibration_texts: str | Iterable[str] | Calibration | None,
    path: str | os.PathLike[str],
    *,
    budget: int | None = None,
    bits_per_weight: float | None = None,
    calibration_tokens: int = 49_152,
    rung: str = "watersic-rate",
    effort: str = "smallest",
    keep_calibration: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SizeSplit:
    """Writes the best file of a size of a model's weights, in a folder that `from_backslash` opens.

    The folder has `model.bsl`, the configurations and the tokenizer, and its name once it is complete. `model.bsl` is what
    `backslash compress FOLDER --calibration calibration.safetensors` makes of the same model's `save_pretrained` folder, byte
    for byte.

    Args:
        model: A model of `transformers`. It is not changed.
        tokenizer: Its tokenizer.
        calibration_texts: Texts like those that the model is for, or what `calibrate` has learned on them: steps then follow
            how much the predictions mind an error, and quantisers know what layers see. None does without, and loses more.
        path: The folder to write.
        budget: Largest `model.bsl`, in bytes.
        bits_per_weight: The same in bits for each float of the model.
        calibration_tokens: Tokens of the texts that are used.
        rung: Quantiser with texts: "rtn", "rdoq", "entquant", "trellis", "gptq", "watersic" or "watersic-rate".
        effort: "smallest" or "fast", as in `save_file`.
        keep_calibration: Put `calibration.safetensors` beside the weights: as large as the squares of the layers' widths.
        overwrite: Replace the folder, if it is one of these.
        progress: Called with (done, total or None, what) on the way. What it raises ends the work.

    Returns:
        Where the bytes of `model.bsl` go.

    Raises:
        ConfigurationError: an argument that cannot be.
        BudgetError: no file is as small as that.
        InvalidTensorError: a weight is not finite.
        FileExistsError, OSError: the folder cannot be written.
    """
    path = pathlib.Path(path)
    size = checked_size(budget, bits_per_weight)
    _refuse_replacing(path, overwrite)
    tensors = stored_tensors(model)
    calibration = calibration_texts
    if not (calibration is None or isinstance(calibration, Calibration)):
        calibration = calibrate(model, tokenizer, calibration, tokens=calibration_tokens, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        weights = partial / WEIGHTS
        if calibration is None:
            split = save_file(tensors, weights, **size._asdict(), effort=effort, progress=progress)
        else:
            split = _save_calibrated(tensors, weights, calibration, rung, size, effort, progress)
            if keep_calibration:
                calibration.save(partial / CALIBRATION)
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        config.save_pretrained(partial)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _put_in_place(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return split


def from_backslash(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    max_memory: int = _native.DEFAULT_MAX_MEMORY,
) -> Any:
    """The model of a folder that `compress_model` wrote, with its decoded weights, on the CPU and ready to be run.

    Args:
        path: The folder.
        dtype: Type of the weights; without it that of the model before.
        max_memory: Most bytes that the decoded tensors may take.

    Raises:
        FileNotFoundError: the folder has no `model.bsl`.
        ConfigurationError: `transformers` does not know the architecture.
        InvalidTensorError: the file is of another model.
        CorruptFileError, FutureVersionError, MemoryLimitError: as `load_file`.
    """
    path = pathlib.Path(path)
    tensors = backslash.torch.load_file(path / WEIGHTS, max_memory=max_memory)
    config = transformers.AutoConfig.from_pretrained(path)
    architecture = (config.architectures or ["none"])[0]
    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise ConfigurationError(f"{path}: transformers {transformers.__version__} has no {architecture}")
    model, loaded = kind.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype or getattr(config, "dtype", None),
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loaded.get(what):
            name = sorted(map(str, loaded[what]))[0]
            raise InvalidTensorError(f"{path / WEIGHTS} is not of this {architecture}: {what.replace('_', ' ')}, `{name}` first")
    if (path / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    return model


def _save_calibrated(
    tensors: dict[str, torch.Tensor],
    path: pathlib.Path,
    calibration: Calibration,
    rung: str,
    size: Size,
    effort: str,
    progress: Progress | None,
) -> SizeSplit:
    def described(named: Any) -> list[_tensors.Described]:
        return [_tensors.describe(name, tensor) for name, tensor in named.items()]

    options = checked_options(path, effort=effort, progress=progress)
    gathered = described(calibration.tensors)
    split = _native.save_by_calibration(described(tensors), gathered, calibration.index, rung, size, options)
    return SizeSplit(**split)


def _refuse_replacing(path: pathlib.Path, overwrite: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists (overwrite=True)")
    if not (path / WEIGHTS).exists():
        raise FileExistsError(f"{path} has no {WEIGHTS}, so it is not replaced")


def _put_in_place(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a complete folder its name; one that has it already goes away afterwards."""
    partial.chmod(0o755)
    if not path.exists():
        partial.rename(path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as old:
        path.rename(pathlib.Path(old) / path.name)
        partial.rename(path)
