"""What a run gains from momentum, predicted from a probe, and what to do about it."""

from __future__ import annotations

from lightball.forecast.forecast import Forecast, ValueMap, forecast, value_map
from lightball.forecast.validity import Validity

__all__ = ["Forecast", "Validity", "ValueMap", "forecast", "value_map"]
