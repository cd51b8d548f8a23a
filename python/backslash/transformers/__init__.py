"""Models of Hugging Face `transformers`: to the best file of a size, and back; and trained for one.

    size = compress_model(model, tokenizer, texts, "small", budget=20_000_000)
    model = from_backslash("small")

    Trainer(..., callbacks=[RateCallback(method="bits", weight=0.1)])
"""

from backslash.transformers.calibration import Calibration, calibrate
from backslash.transformers.folder import compress_model, from_backslash
from backslash.transformers.trainer import RateCallback

__all__ = ["Calibration", "RateCallback", "calibrate", "compress_model", "from_backslash"]
