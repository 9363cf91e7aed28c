"""What a run gains from momentum, predicted from a probe, and what to do about it.

- `forecast`, `value_map`: expected losses of SGD with and without momentum from a probe, and where that ends.
- `advise`: regime, best-tuned gap and critical batch size from probes of one or several phases (`phases_of`).
- `measured`: the value of momentum by paired runs, to hold forecasts against.
- `monitor`: the same in a running job.
"""

from __future__ import annotations

from lightball.forecast.advice import Advice
from lightball.forecast.advising import advise
from lightball.forecast.forecast import Forecast, ValueMap, forecast, value_map
from lightball.forecast.phase import Phase, Phases
from lightball.forecast.phases import Effort, phases_of
from lightball.forecast.validity import Validity

__all__ = [
    "Advice",
    "Effort",
    "Forecast",
    "Phase",
    "Phases",
    "Validity",
    "ValueMap",
    "advise",
    "forecast",
    "phases_of",
    "value_map",
]
