"""Models of Hugging Face `transformers`: to the best file of a size, and back.

    size = compress_model(model, tokenizer, texts, "small", budget=20_000_000)
    model = from_backslash("small")
"""

from backslash.transformers.calibration import Calibration, calibrate
from backslash.transformers.folder import compress_model, from_backslash

__all__ = ["Calibration", "calibrate", "compress_model", "from_backslash"]
