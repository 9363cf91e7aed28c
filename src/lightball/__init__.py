"""lightball: does your training run need momentum?

>>> import lightball
>>> result = lightball.compare("digits", batch_sizes=(8, 512))          # doctest: +SKIP
>>> result.summary("train_loss")                                        # doctest: +SKIP
Span(no_value_up_to=8, helps_from=512)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightball.version import __version__

__all__ = [
    "Data",
    "InputError",
    "Monitor",
    "Settings",
    "Workload",
    "__version__",
    "advise",
    "audit",
    "compare",
    "drop_momentum",
    "load",
    "with_momentum",
    "write_report",
]

if TYPE_CHECKING:
    from lightball.errors import InputError
    from lightball.forecast import advise
    from lightball.forecast.monitor import Monitor
    from lightball.optim import audit, drop_momentum, with_momentum
    from lightball.report.writing import write_report
    from lightball.studies import Settings, compare
    from lightball.studies.store import load
    from lightball.workloads import Data, Workload

_HOMES = {
    "InputError": "lightball.errors",
    "advise": "lightball.forecast",
    "Monitor": "lightball.forecast.monitor",
    "audit": "lightball.optim",
    "drop_momentum": "lightball.optim",
    "with_momentum": "lightball.optim",
    "Settings": "lightball.studies",
    "compare": "lightball.studies",
    "load": "lightball.studies.store",
    "Data": "lightball.workloads",
    "Workload": "lightball.workloads",
    "write_report": "lightball.report.writing",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used, so that ``lightball --version`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lightball' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
