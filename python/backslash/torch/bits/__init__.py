"""The rate in bits: learned steps, noise or rounding, and a probability model that follows the weights."""

from backslash.torch.bits.budget import Forecast
from backslash.torch.bits.pressure import Bits
from backslash.torch.bits.schedule import Schedule

__all__ = ["Bits", "Forecast", "Schedule"]
